# SPDX-License-Identifier: MIT
"""libdw of elfutils: the call stack of a task that this thread has stopped by ptrace (elfutils/libdwfl.h).

Unwound by what every library has for its exceptions (.eh_frame); named by its symbols, and by file and line where
there is debugging information on this machine. Nothing is fetched from a debuginfod server.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """One call. What is not known is None; `line` counts from 1."""

    function: str | None
    file: str | None
    line: int | None
    module: str | None


class _Callbacks(ctypes.Structure):
    _fields_ = [
        ("find_elf", ctypes.c_void_p),
        ("find_debuginfo", ctypes.c_void_p),
        ("section_address", ctypes.c_void_p),
        ("debuginfo_path", ctypes.c_void_p),
    ]


_VISITOR = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_MOST_FRAMES = 64
_ABORT, _OK = -1, 0


class _Library:
    """The functions that are used, with their types."""

    def __init__(self) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int
        try:
            library = ctypes.PyDLL("libdw.so.1")
        except OSError as error:
            raise ImportError(str(error), name="libdw.so.1") from None

        def bind(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            return function  # type: ignore[no-any-return]

        address = ctypes.c_uint64
        self.begin = bind("dwfl_begin", pointer, pointer)
        self.end = bind("dwfl_end", None, pointer)
        self.report_begin = bind("dwfl_report_begin_add", None, pointer)
        self.report = bind("dwfl_linux_proc_report", number, pointer, number)
        self.report_end = bind("dwfl_report_end", number, pointer, pointer, pointer)
        self.attach = bind("dwfl_linux_proc_attach", number, pointer, number, ctypes.c_bool)
        self.frames = bind("dwfl_getthread_frames", number, pointer, number, _VISITOR, pointer)
        self.program_counter = bind(
            "dwfl_frame_pc", ctypes.c_bool, pointer, ctypes.POINTER(address), ctypes.POINTER(ctypes.c_bool)
        )
        self.module_at = bind("dwfl_addrmodule", pointer, pointer, address)
        self.module_name = bind("dwfl_module_info", ctypes.c_char_p, pointer, *[pointer] * 7)
        self.symbol = bind("dwfl_module_addrname", ctypes.c_char_p, pointer, address)
        self.source = bind("dwfl_module_getsrc", pointer, pointer, address)
        self.line = bind(
            "dwfl_lineinfo", ctypes.c_char_p, pointer, pointer, ctypes.POINTER(number), pointer, pointer, pointer
        )
        self.callbacks = _Callbacks(
            ctypes.cast(library.dwfl_linux_proc_find_elf, pointer).value,
            ctypes.cast(library.dwfl_standard_find_debuginfo, pointer).value,
        )


_library: _Library | None = None


def load() -> _Library:
    """Load the library now. ImportError when it is not there."""
    global _library
    if _library is None:
        os.environ.pop("DEBUGINFOD_URLS", None)  # or a look-up would go to the network
        _library = _Library()
    return _library


class Unwinder:
    """The stacks of one process, until it executes another program. ImportError without libdw."""

    def __init__(self, pid: int) -> None:
        self._dw = load()
        self._pid = pid
        self._named: dict[int, Frame] = {}
        self._open()

    def _open(self) -> None:
        self._dwfl = self._dw.begin(ctypes.addressof(self._dw.callbacks))
        if self._dwfl and self._report():
            # True: it is stopped already, by us
            self._attached = self._dw.attach(self._dwfl, self._pid, True) == 0
        else:
            self._attached = False

    def close(self) -> None:
        if self._dwfl:
            self._dw.end(self._dwfl)
            self._dwfl = None
            self._attached = False

    def stack(self, tid: int) -> tuple[Frame, ...]:
        """The calls of a stopped thread, innermost first; as far as they can be followed, so perhaps none."""
        if not self._attached:  # it had only begun
            self.close()
            self._open()
            if not self._attached:
                return ()
        addresses = self._addresses(tid)
        if any(self._dw.module_at(self._dwfl, address) is None for address in addresses):
            self._report()  # something was loaded since
            self._named.clear()
            addresses = self._addresses(tid)
        return tuple(self._name(address) for address in addresses)

    def _report(self) -> bool:
        self._dw.report_begin(self._dwfl)
        reported = self._dw.report(self._dwfl, self._pid)
        return bool(self._dw.report_end(self._dwfl, None, None) == 0 and reported == 0)

    def _addresses(self, tid: int) -> list[int]:
        found: list[int] = []

        def visit(frame: int, _: int) -> int:
            address, exact = ctypes.c_uint64(), ctypes.c_bool()
            if len(found) == _MOST_FRAMES or not self._dw.program_counter(
                frame, ctypes.byref(address), ctypes.byref(exact)
            ):
                return _ABORT
            # A return address is that of the next instruction, which may be another line's.
            found.append(address.value - (0 if exact.value else 1))
            return _OK

        self._dw.frames(self._dwfl, tid, _VISITOR(visit), None)
        if not found:
            # It was killed, or is not stopped. The next try would abort this process: libdw (0.188) asserts in
            # pid_set_initial_registers that no failed one has gone before.
            self.close()
            self._open()
        return found

    def _name(self, address: int) -> Frame:
        if address not in self._named:
            self._named[address] = self._look_up(address)
        return self._named[address]

    def _look_up(self, address: int) -> Frame:
        module = self._dw.module_at(self._dwfl, address)
        if module is None:
            return Frame(None, None, None, None)
        symbol = self._dw.symbol(module, address)
        file, line = None, ctypes.c_int()
        if source := self._dw.source(module, address):
            file = self._dw.line(source, None, ctypes.byref(line), None, None, None)
        return Frame(_text(symbol), _text(file), line.value or None, _text(self._dw.module_name(module, *[None] * 7)))


def _text(name: bytes | None) -> str | None:
    return None if name is None else os.fsdecode(name)
