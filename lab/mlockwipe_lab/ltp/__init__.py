# SPDX-License-Identifier: MIT
"""The Linux Test Project's tests of system calls, with one page locked, bare and under `mlockwipe run`."""
