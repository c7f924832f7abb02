# SPDX-License-Identifier: MIT
"""Sizes as people write them."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """`16K`, `1M`, `2G` or a number of bytes, in bytes. ValueError for anything else, and for nothing."""
    number, unit = (text[:-1], text[-1]) if text[-1:].upper() in ("K", "M", "G") else (text, "")
    if not (number.isascii() and number.isdigit()) or int(number) == 0:
        raise ValueError(f"'{text}' is no size: write it as 16K, 1M, 2G or a number of bytes")
    return int(number) * _UNITS[unit.upper()]
