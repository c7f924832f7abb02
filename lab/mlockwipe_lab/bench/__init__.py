# SPDX-License-Identifier: MIT
"""What mlockwipe costs: in instructions of a guest, and on this machine as ratios to the same work without it."""
