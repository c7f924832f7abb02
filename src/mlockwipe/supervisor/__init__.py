# SPDX-License-Identifier: MIT
"""The carrier that needs no privilege: ptrace and seccomp, and locked memory is wiped at its release."""
