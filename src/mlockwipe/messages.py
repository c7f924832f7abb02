# SPDX-License-Identifier: MIT
"""What is said on stderr. Whatever that is, saying something fails never and takes no longer than a moment.

It may be closed, full, a pipe whose reader has gone, or one that nobody reads. It is shared with the program, so it
can't be made non-blocking.
"""

import errno
import os
import select
import stat
import sys
from time import monotonic

from mlockwipe.printable import printable
from mlockwipe.suppress import suppress

_STDERR = 2
_PIECE = 4096  # what a pipe takes without blocking if it takes anything (PIPE_BUF)
_PATIENCE = 0.2  # seconds for a reader; none any more once that was in vain
_NO_NOWAIT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ESPIPE)


class _Reader:
    is_slow = False


def tell(text: str) -> None:
    """Say one line, whatever is in the text."""
    write(_line(text))


def say(text: str) -> None:
    """As `tell`, but through sys.stderr where somebody in this process has put something in its place."""
    say_as_it_is(_line(text))


def say_as_it_is(text: str) -> None:
    """As `say`, but whole lines in which nobody else's words are."""
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        write(text)
    else:
        sys.stderr.write(text)
        sys.stderr.flush()


def write(text: str) -> None:
    """Write whole lines to the descriptor. What is not taken in time is lost."""
    with suppress(OSError):
        mode = os.fstat(_STDERR).st_mode
        fd = _opened_anew() if stat.S_ISCHR(mode) else _STDERR
        try:
            _write(fd, text.encode(errors="backslashreplace"), 0 if stat.S_ISREG(mode) else os.RWF_NOWAIT)
        finally:
            if fd != _STDERR:
                os.close(fd)


def _opened_anew() -> int:
    """A terminal that is ready may have room for a part of a line only, and waits then. Not so if it was opened for
    that, which needs the right to, as one has to one's own."""
    try:
        return os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return _STDERR


def _write(fd: int, data: bytes, flags: int) -> None:
    deadline = monotonic() + (0.0 if _Reader.is_slow else _PATIENCE)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while data:
        ready = poll.poll(max(0.0, deadline - monotonic()) * 1000)
        written = _write_now(fd, data[:_PIECE], flags) if ready else 0
        _Reader.is_slow = not written
        if _Reader.is_slow and monotonic() >= deadline:
            return
        data = data[written:]


def _write_now(fd: int, data: bytes, flags: int) -> int:
    """How much was written at once: others write there too, so that what was ready may be full again."""
    try:
        return os.pwritev(fd, [data], -1, flags)
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno not in _NO_NOWAIT:  # as of terminals, and of pipes before Linux 6.4
            raise
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


def _line(text: str) -> str:
    return f"mlockwipe: {printable(text)}\n"
