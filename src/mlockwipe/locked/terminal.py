# SPDX-License-Identifier: MIT
"""A line typed at a terminal that doesn't show it, read into memory of the caller's."""

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_LINE = 1024  # bytes; the kernel itself cuts lines off silently at 4095

_IFLAG, _LFLAG = 0, 3  # of what tcgetattr returns


def read_line(path: str, prompt: str, room: memoryview) -> int:
    """Show the prompt, read a line into `room` and return its length without its end.

    Raises EOFError when the input ends before anything was typed, ValueError when `room` is too small for the line
    and its end, OSError where there is no terminal.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        with _unseen(fd):
            _write(fd, prompt.encode())
            try:
                return _read_line(fd, room)
            finally:
                _write(fd, b"\n")  # the one that was typed was not shown either
    finally:
        os.close(fd)


@contextmanager
def _unseen(fd: int) -> Iterator[None]:
    """A terminal that hands over whole lines and shows nothing of them. What was typed before is thrown away."""
    before = termios.tcgetattr(fd)
    unseen = before.copy()
    unseen[_IFLAG] |= termios.ICRNL
    unseen[_LFLAG] = unseen[_LFLAG] & ~termios.ECHO & ~termios.ECHONL | termios.ICANON
    try:
        termios.tcsetattr(fd, termios.TCSAFLUSH, unseen)
        yield
    finally:
        # and so is what was typed beyond the line, which may be of the secret
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _read_line(fd: int, room: memoryview) -> int:
    length = 0
    while count := os.readv(fd, [room[length:]]):
        length += count
        if room[length - 1] == ord("\n"):
            return length - 1
        if length == len(room):
            raise ValueError(f"the line is longer than {length - 1} bytes")
    if length == 0:
        raise EOFError("the input ended before anything was typed")
    return length


def _write(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]
