# SPDX-License-Identifier: MIT
"""What went wrong with one process, in words: it goes on without protection, and all others as ever."""

import os

_PACKAGE = os.path.dirname(os.path.dirname(__file__))


def reason(error: Exception) -> str:
    """Why something could not be done, without its subject. Of an unexpected exception nothing but its type and where
    it was raised, for what it says may hold anything of the program's."""
    if isinstance(error, OSError):
        return f"the kernel refuses what that needs: {error.strerror or error}"
    return f"a defect of mlockwipe, please report it: {type(error).__name__} in {_place(error)}"


def _place(error: Exception) -> str:
    """The innermost line of ours that the exception came through."""
    place = "?"
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if path.startswith(_PACKAGE):
            place = f"{path[len(_PACKAGE) + 1 :]}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
