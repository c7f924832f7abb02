# SPDX-License-Identifier: MIT
"""Programs whose file gives privileges to whoever executes it (capabilities(7), execve(2))."""

import os
import stat

NONE, SET_ID, CAPABILITIES = range(3)


def privilege_of(path: str) -> int:
    """How a program gives privileges: by set-user-ID or set-group-ID, or by file capabilities (setcap(8)).

    None by what can't be looked at, and by a file system that is mounted nosuid.
    """
    try:
        if os.statvfs(path).f_flag & os.ST_NOSUID:
            return NONE
        if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID):
            return SET_ID
        os.getxattr(path, "security.capability")
    except OSError:
        return NONE
    return CAPABILITIES
