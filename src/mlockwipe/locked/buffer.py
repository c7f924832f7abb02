# SPDX-License-Identifier: MIT
"""LockedBuffer: what a program holds a secret in."""

import ctypes
import functools
import os
import sys
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast, overload

from mlockwipe.locked import terminal
from mlockwipe.locked.pool import POOL, Slot

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")
_FIRST_READ = 4096  # bytes
_FULL_RO = 284  # PyBUF_FULL_RO of Include/cpython/object.h: what memoryview asks for


# A class in Python can export a buffer by itself from Python 3.12 on (PEP 688). Before, it has to inherit that from a
# type in C, of which only ctypes' can lie at any place in memory. It is a structure and no array: memoryview reads
# the strides of what it is compared with or assigned from, an array of ctypes has none, and the interpreter crashes
# (3.11 and 3.13: memoryview(bytearray(4)) == (ctypes.c_ubyte * 4)()). A structure has no dimension, and needs none.
#
# The memory is borrowed by from_buffer: it stays mapped while anything refers to the structure, as a memoryview does.
_borrow: Any = type(ctypes.Structure).from_buffer


class LockedBuffer(ctypes.Structure):
    """Bytes of a fixed number in locked memory, for a secret; cleared when they are released.

    LockedBuffer(32) has 32 zeros; LockedBuffer(data) has a copy of `data`, bytes or anything like them.

    It is a writable bytes-like object: what takes one (hashlib, os.readv, readinto) gets the memory itself. A slice
    is a memoryview of the part, no copy; buffer[:] is for what takes a memoryview alone. It is equal to bytes-like
    objects of the same content, which takes as long whatever that is. It can't be hashed, pickled or copied, and
    shows nothing of its content.

    It is released by `release`, at the end of a `with` block, when nothing refers to it any more, and when the
    interpreter ends. Then its content is zeros, also in a memoryview that is still there, and its methods raise
    ValueError. A forked child has none of its parent's: there the content is zeros, and they raise ValueError too.

    Raises LockLimitReached when RLIMIT_MEMLOCK leaves no room, and OSError when the kernel has no memory.
    """

    __slots__ = ("__weakref__", "_released", "_slot")
    _slot: Slot
    _released: bool

    def __new__(cls, source: "int | Buffer") -> Self:
        size = source if isinstance(source, int) else memoryview(_usable(source)).nbytes
        if size < 0:
            raise ValueError(f"a buffer of {size} bytes: the size can't be negative")
        sized = _of_size(cls, size)
        slot = POOL.take(size)
        new: Self = _borrow(sized, slot.pages.memory, slot.offset)
        new._slot = slot
        new._released = False
        return new

    def __init__(self, source: "int | Buffer") -> None:
        if not isinstance(source, int):
            self[:] = source

    @classmethod
    def from_fd(cls, fd: int, *, limit: int = 65536) -> Self:
        """All that can be read from a descriptor until its end, at most `limit` bytes.

        It is read straight into locked memory, of which this takes up to twice as much meanwhile. Raises ValueError
        when there is more, and OSError when reading fails.
        """
        read = 0
        room = LockedBuffer(min(_FIRST_READ, limit + 1))
        try:
            while count := os.readv(fd, [room[read:]]):
                read += count
                if read > limit:
                    raise ValueError(f"descriptor {fd} has more than {limit} bytes")
                if read == len(room):
                    smaller, room = room, LockedBuffer(min(2 * read, limit + 1))
                    room[:read] = smaller
                    smaller.release()
            return cls(room[:read])
        finally:
            room.release()

    @classmethod
    def from_tty(cls, prompt: str = "Password: ", *, path: str = "/dev/tty") -> Self:
        """A line typed at the terminal, unseen and without its end.

        The terminal is as it was afterwards, whatever happens. Raises EOFError when the input ends before anything
        was typed (Ctrl-D), ValueError for more than terminal.LONGEST_LINE bytes, and OSError where there is no
        terminal: then from_fd(0) may be what is wanted.
        """
        with LockedBuffer(terminal.LONGEST_LINE + 1) as room:
            return cls(room[: terminal.read_line(path, prompt, room[:])])

    @property
    def released(self) -> bool:
        """Whether the content is gone."""
        return self._released or self._slot.pages.lost is not None

    def clear(self) -> None:
        """Overwrite the content with zeros, and stay usable."""
        self._check()
        self._zero()

    def release(self) -> None:
        """Overwrite the content with zeros and refuse any further use. Again, it does nothing.

        The room is given back when nothing refers to the buffer or a memoryview of it any more, so none can ever
        show another secret.
        """
        if not self.released:
            self._zero()
            self._released = True

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        slot: Slot | None = getattr(self, "_slot", None)  # none if __new__ failed
        if slot is not None and slot.pages.lost is None:
            self._zero()  # once more after `release`: a view may have been written to since
            POOL.give_back(slot)

    def __len__(self) -> int:
        return ctypes.sizeof(self)

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> memoryview: ...
    def __getitem__(self, key: "int | slice") -> "int | memoryview":
        return self._view(key)[key]

    @overload
    def __setitem__(self, key: int, value: int) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: "Buffer") -> None: ...
    def __setitem__(self, key: "int | slice", value: Any) -> None:
        view = self._view(key)
        if isinstance(key, slice):
            view[key] = memoryview(_usable(value)).cast("B")
        else:
            view[key] = value

    def __eq__(self, other: object) -> bool:
        self._check()
        try:
            return compare_digest(self, cast("Buffer", _usable(other)))
        except TypeError:  # not bytes-like
            return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.released:
            return f"<LockedBuffer of {len(self)} bytes, released>"
        return f"<LockedBuffer of {len(self)} bytes, {'memfd_secret' if self._slot.pages.secret else 'mlock'}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a LockedBuffer can't be pickled or copied: its content must not leave the locked memory")

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            self._check()
            return super().__buffer__(_FULL_RO).cast("B")

    def _view(self, key: "int | slice") -> memoryview:
        self._check()
        if isinstance(key, slice) and key.step not in (None, 1):
            # memoryview would assign to such a slice by way of the heap
            raise ValueError("a slice of a LockedBuffer has no step: its bytes are side by side")
        return memoryview(self).cast("B")

    def _check(self) -> None:
        if self._released:
            raise ValueError("this LockedBuffer has been released")
        if self._slot.pages.lost is not None:
            raise ValueError(f"this LockedBuffer can't be used: {self._slot.pages.lost}")

    def _zero(self) -> None:
        ctypes.memset(ctypes.addressof(self), 0, len(self))


@functools.lru_cache(maxsize=256)
def _of_size(cls: type[LockedBuffer], size: int) -> Any:
    """The subclass whose instances have that size. Under the same name, for it is nothing a user needs to know."""
    members = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "_fields_": [("_bytes", ctypes.c_ubyte * size)],
    }
    return type(cls)(cls.__name__, (cls,), members)  # type: ignore[misc]


def _usable(source: _T) -> _T:
    """`source`; ValueError for a buffer that was released, which Python 3.11 can't refuse to be read: see docs."""
    if isinstance(source, LockedBuffer):
        source._check()
    return source
