# SPDX-License-Identifier: MIT
"""A line typed at a terminal: not shown, read whole, and the terminal is as it was, whatever happens."""

import os
import pty
import select
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mlockwipe import LockedBuffer
from mlockwipe.locked.terminal import LONGEST_LINE

CTRL_C, CTRL_D = b"\x03", b"\x04"
PROMPT = "Passphrase: "


class Keyboard:
    """The user's side of a terminal."""

    def __init__(self) -> None:
        self.fd, self._terminal = pty.openpty()
        self.path = os.ttyname(self._terminal)
        self.before = termios.tcgetattr(self._terminal)

    def type_at_prompt(self, *texts: bytes) -> threading.Thread:
        """Type each text when the prompt is there, in the background."""

        def work() -> None:
            self.seen(PROMPT.encode())
            for text in texts:
                os.write(self.fd, text)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def seen(self, text: bytes) -> bytes:
        """What is on the screen, as soon as `text` is."""
        screen = b""
        while text not in screen:
            screen += os.read(self.fd, 1024)
        return screen

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._terminal) == self.before

    def shows(self) -> bool:
        return bool(termios.tcgetattr(self._terminal)[3] & termios.ECHO)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._terminal)


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    keyboard = Keyboard()
    yield keyboard
    keyboard.close()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ([b"correct horse\n"], b"correct horse"),
        ([b"correct horse\r"], b"correct horse"),
        ([b"\n"], b""),
        ([b"wrong\x15right\n"], b"right"),  # Ctrl-U
        (["gr\u00fcn\n".encode()], "gr\u00fcn".encode()),
        ([b"in ", b"two ", b"parts\n"], b"in two parts"),
        ([b"no end" + CTRL_D + CTRL_D], b"no end"),
        ([b"one line\nand another\n"], b"one line"),
        ([b"x" * LONGEST_LINE + b"\n"], b"x" * LONGEST_LINE),
    ],
)
def test_a_line_is_read_without_its_end(keyboard: Keyboard, typed: list[bytes], read: bytes) -> None:
    typing = keyboard.type_at_prompt(*typed)
    assert LockedBuffer.from_tty(PROMPT, path=keyboard.path) == read
    typing.join()
    assert keyboard.is_as_before()


def test_what_is_typed_is_not_shown(keyboard: Keyboard) -> None:
    read: list[LockedBuffer] = []
    reading = threading.Thread(target=lambda: read.append(LockedBuffer.from_tty(PROMPT, path=keyboard.path)))
    reading.start()
    screen = keyboard.seen(PROMPT.encode())
    assert not keyboard.shows()
    os.write(keyboard.fd, b"secret\n")
    screen += keyboard.seen(b"\n")
    reading.join()
    assert read[0] == b"secret"
    assert screen == PROMPT.encode() + b"\r\n"
    assert keyboard.shows()


def test_what_was_typed_before_the_prompt_is_not_taken(keyboard: Keyboard) -> None:
    os.write(keyboard.fd, b"too early\n")
    assert select.select([keyboard._terminal], [], [], 10)[0]  # the kernel hands it over when it gets to it
    typing = keyboard.type_at_prompt(b"in time\n")
    assert LockedBuffer.from_tty(PROMPT, path=keyboard.path) == b"in time"
    typing.join()


def test_a_terminal_in_raw_mode_gives_lines_too(keyboard: Keyboard) -> None:
    raw = termios.tcgetattr(keyboard._terminal)
    raw[0] &= ~termios.ICRNL
    raw[3] &= ~(termios.ICANON | termios.ECHO)
    termios.tcsetattr(keyboard._terminal, termios.TCSANOW, raw)
    raw = termios.tcgetattr(keyboard._terminal)
    typing = keyboard.type_at_prompt(b"wrong\x15typed\r")
    assert LockedBuffer.from_tty(PROMPT, path=keyboard.path) == b"typed"
    typing.join()
    assert termios.tcgetattr(keyboard._terminal) == raw


@pytest.mark.parametrize(("typed", "error"), [(CTRL_D, EOFError), (b"x" * (LONGEST_LINE + 1) + b"\n", ValueError)])
def test_an_error_restores_the_terminal(keyboard: Keyboard, typed: bytes, error: type[Exception]) -> None:
    typing = keyboard.type_at_prompt(typed)
    with pytest.raises(error):
        LockedBuffer.from_tty(PROMPT, path=keyboard.path)
    typing.join()
    assert keyboard.is_as_before()


def in_a_session_of_its_own(keyboard: Keyboard, body: Callable[[], int]) -> int:
    """Run `body` in a child whose controlling terminal this is. Returns the child's pid."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.setsid()
            os.close(os.open(keyboard.path, os.O_RDWR))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)  # it does not outlive a test that failed
            status = body()
        finally:
            os._exit(status)
    return pid


def test_the_controlling_terminal_is_asked_by_default(keyboard: Keyboard) -> None:
    pid = in_a_session_of_its_own(keyboard, lambda: 0 if LockedBuffer.from_tty(PROMPT) == b"typed" else 1)
    keyboard.seen(PROMPT.encode())
    os.write(keyboard.fd, b"typed\n")
    assert os.waitpid(pid, 0)[1] == 0


def test_ctrl_c_is_a_keyboard_interrupt_and_restores_the_terminal(keyboard: Keyboard) -> None:
    def body() -> int:
        try:
            LockedBuffer.from_tty(PROMPT)
        except KeyboardInterrupt:
            return 0 if keyboard.is_as_before() else 2
        return 1

    pid = in_a_session_of_its_own(keyboard, body)
    keyboard.seen(PROMPT.encode())
    os.write(keyboard.fd, b"half a sec")
    # Python does not hear a signal that comes just before it begins to read: so it is typed until it is heard.
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        os.write(keyboard.fd, CTRL_C)
        time.sleep(0.05)
    assert ended[1] == 0
    assert keyboard.is_as_before()


def test_without_a_terminal_it_is_an_error() -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()  # which has no controlling terminal
            LockedBuffer.from_tty(PROMPT)
        except OSError:
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_file_is_no_terminal() -> None:
    with pytest.raises(termios.error):
        LockedBuffer.from_tty(PROMPT, path="/dev/null")
