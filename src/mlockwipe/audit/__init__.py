# SPDX-License-Identifier: MIT
"""Which secrets a program left in its locked memory, or lost from it: what the supervisor saw, told by call stack."""
