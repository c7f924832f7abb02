# SPDX-License-Identifier: MIT
"""Traced tasks: births, stops, execs, ends. What differs between `run` and `attach` is a policy (tracees.py)."""
