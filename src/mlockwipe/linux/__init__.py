# SPDX-License-Identifier: MIT
"""Typed bindings to the kernel, one file per interface: no policy, no state of ours."""
