# SPDX-License-Identifier: MIT
"""waitid(2) of tasks that are traced: what a stop is, decoded once (ptrace(2), include/uapi/linux/wait.h)."""

WALL = 0x40000000  # __WALL: children of every kind, threads and those without an exit signal included
