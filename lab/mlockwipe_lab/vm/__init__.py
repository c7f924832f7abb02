# SPDX-License-Identifier: MIT
"""Virtual machines: a kernel is found, booted with one program, talked to and stopped, and its memory searched."""
