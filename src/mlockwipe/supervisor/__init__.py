# SPDX-License-Identifier: MIT
"""The carrier that needs no privilege: a supervisor over ptrace and seccomp that wipes locked memory at its release."""
