# SPDX-License-Identifier: MIT
"""What the boot option and the module cost, in instructions of a guest: the same numbers on anyone's machine."""
