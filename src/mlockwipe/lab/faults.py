# SPDX-License-Identifier: MIT
"""What a kernel says on its console when something is wrong with it."""

import re

_FAULT = re.compile(r"cut here|BUG:|Oops|Kernel panic|general protection|Call Trace|\[#\d+\]|^\[[ \d.]+\] WARNING:")


def fault(console: str) -> str | None:
    """The first complaint: an oops, a warning, lockdep's or KASAN's, a task that hangs, a panic. None without one."""
    return next((line.strip() for line in console.splitlines() if _FAULT.search(line)), None)
