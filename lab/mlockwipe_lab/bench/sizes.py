# SPDX-License-Identifier: MIT
"""Sizes of memory, for people."""


def size_name(kibibytes: int, separator: str = " ") -> str:
    for unit, size in (("GiB", 1 << 20), ("MiB", 1 << 10)):
        if kibibytes >= size:
            return f"{kibibytes // size}{separator}{unit}"
    return f"{kibibytes}{separator}KiB"
