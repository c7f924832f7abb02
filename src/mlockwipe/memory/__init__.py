# SPDX-License-Identifier: MIT
"""One address space (an mm of the kernel): what in it is sensitive, its keeper, and how it is wiped."""
