# SPDX-License-Identifier: MIT
"""What differs between processors: registers, system-call numbers, the system-call instruction."""
