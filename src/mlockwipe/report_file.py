# SPDX-License-Identifier: MIT
"""A file that a user has named for a report.

It may lie in a directory where a program of another user does as it likes while it runs. So the directory is opened
before that, and everything is done relative to it: what its path leads to later does not matter, and nothing that
somebody puts there is followed, opened or waited for.
"""

import errno
import os
import stat

from mlockwipe.errors import Refused
from mlockwipe.suppress import suppress

STDOUT = "-"

_MOST_LINKS = 40  # as the kernel follows (MAXSYMLINKS)
_NEVER_WAIT = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE = 4096  # what a pipe takes without blocking if it takes anything (PIPE_BUF)


class ReportFile:
    """A file that is found to be writable before the work begins, and replaced as a whole after it; or stdout.

    Raises Refused, in both. Until it is written, a file of that name keeps its content. `by_supervisor`: others wait
    for whoever writes. A device or a pipe is refused then, and nobody is waited for without end. `creates`: an empty
    file is there at once, which shows best that it can be made.
    """

    def __init__(self, path: str, *, by_supervisor: bool = False, creates: bool = True) -> None:
        self._path = path
        self._patience = 10_000 if by_supervisor else None  # milliseconds for the reader of a stream
        self._directory = self._stream = -1
        self._name = ""
        try:
            self._open(by_supervisor, creates)
        except OSError as error:
            raise self._refused(error) from None

    @property
    def descriptors(self) -> set[int]:
        """What is held open, for whoever closes the rest."""
        return {self._directory, self._stream} - {-1}

    @property
    def is_stream(self) -> bool:
        """Whether what was written stays written, so that only the last word should be."""
        return self._stream != -1

    def write(self, text: str) -> None:
        """Once, and be done with it."""
        try:
            self.replace(text)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            for fd in self.descriptors:
                os.close(fd)

    def replace(self, text: str) -> None:
        """As `write`, but OSError: a reader sees the old file or the new one, whole."""
        data = text.encode(errors="backslashreplace")
        if self.is_stream:
            self._write_stream(data)
            return
        mode = self._mode()
        temporary = f".mlockwipe-{os.urandom(8).hex()}"
        fd = os.open(temporary, _NEVER_WAIT | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory)
        try:
            with open(fd, "wb", buffering=0) as file:
                with suppress(OSError):  # a file system without modes
                    os.fchmod(fd, mode)
                while data:
                    data = data[file.write(data) :]
            os.rename(temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=self._directory)
            raise

    # -- at the start -------------------------------------------------------------------------------------------

    def _open(self, by_supervisor: bool, creates: bool) -> None:
        standard = 1 if self._path == STDOUT else _standard_stream(self._path)
        if standard is not None:
            self._stream = os.dup(standard)
            return
        there = self._find()
        if there is None:
            if creates:
                os.close(os.open(self._name, _NEVER_WAIT | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._directory))
        elif stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        elif by_supervisor and not stat.S_ISREG(there.st_mode):
            raise _no_regular_file()
        else:
            fd = os.open(self._name, _NEVER_WAIT, dir_fd=self._directory)
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                self._stream = fd
                return
            os.close(fd)
        if not os.access(".", os.W_OK, dir_fd=self._directory, effective_ids=True):
            raise PermissionError(errno.EACCES, "the directory is not writable")

    def _find(self) -> os.stat_result | None:
        """Open the directory that the file is in, or shall be, following links."""
        path = self._path
        for _ in range(_MOST_LINKS):
            place, self._name = os.path.split(path)
            above, self._directory = self._directory, -1
            try:
                self._directory = os.open(
                    place or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=None if above == -1 else above
                )
            finally:
                if above != -1:
                    os.close(above)
            if self._name in ("", ".", ".."):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR if path else errno.ENOENT))
            try:
                there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                return None
            is_link = stat.S_ISLNK(there.st_mode)
            is_plain = stat.S_ISREG(there.st_mode) or stat.S_ISDIR(there.st_mode)
            if not is_plain and there.st_uid not in (0, os.geteuid()):
                what = "link" if is_link else "pipe or device"
                raise PermissionError(errno.EACCES, f"it is a {what} that another user has made")
            if not is_link:
                return there
            path = os.readlink(self._name, dir_fd=self._directory)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    # -- at the end ---------------------------------------------------------------------------------------------

    def _mode(self) -> int:
        """That of the file that is replaced, if that is ours: for its user alone otherwise. OSError for a device."""
        try:
            there = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return 0o600
        if not stat.S_ISREG(there.st_mode) and not stat.S_ISLNK(there.st_mode):
            raise _no_regular_file()
        return there.st_mode & 0o777 if stat.S_ISREG(there.st_mode) and there.st_uid == os.geteuid() else 0o600

    def _write_stream(self, data: bytes) -> None:
        import select

        poll = select.poll()
        poll.register(self._stream, select.POLLOUT)
        while data:
            if not poll.poll(self._patience):
                raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")
            with suppress(BlockingIOError):
                data = data[os.write(self._stream, data[:_PIECE]) :]

    def _refused(self, error: OSError) -> Refused:
        return Refused(f"the report {self._path} can't be written: {error.strerror}")


def _no_regular_file() -> OSError:
    return OSError(errno.EINVAL, "it is no regular file")


def _standard_stream(path: str) -> int | None:
    """1 or 2 for a path that leads to what is stdout or stderr here, as /dev/stdout and /dev/stderr do.

    To replace a file that the program's output goes to would lose that.
    """
    with suppress(OSError):
        there = os.stat(path)
        for fd in (1, 2):
            with suppress(OSError):
                if os.path.samestat(there, os.fstat(fd)):
                    return fd
    return None
