# SPDX-License-Identifier: MIT
"""What the boot option costs, counted in instructions of a guest: the same numbers on anyone's machine."""
