# SPDX-License-Identifier: MIT
"""The pictures in docs/, drawn from what was measured."""
