# SPDX-License-Identifier: MIT
"""Zero a program's mlocked memory when it is released: munmap, exit, exec and SIGKILL included."""

__version__ = "0.1.0"
