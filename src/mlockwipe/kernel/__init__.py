# SPDX-License-Identifier: MIT
"""The kernel that wipes by itself: the patch series, and building one with it."""
