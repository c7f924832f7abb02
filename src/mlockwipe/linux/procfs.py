# SPDX-License-Identifier: MIT
"""/proc/PID: mappings, page states and status of other processes (Documentation/filesystems/proc.rst).

Files of a process are opened once and read through their descriptors: a process that makes itself undumpable later
refuses new opens, while descriptors from before keep working.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator

from mlockwipe.linux.arch import PAGE_SIZE
from mlockwipe.linux.read_file import in_proc, names_in_proc, proc_directory, read_file


class Vma:
    """One line of maps: [start, end) in bytes, whether writable, whether MAP_SHARED, and what is mapped.

    No NamedTuple, because typing takes longer to import than all else that the supervisor needs of Python.
    """

    __slots__ = ("end", "inode", "name", "offset", "protected", "shared", "start", "writable")

    def __init__(
        self, start: int, end: int, writable: bool, shared: bool, offset: int, inode: int, name: str
    ) -> None:
        self.start = start
        self.end = end
        self.writable = writable
        self.shared = shared
        self.offset = offset
        self.inode = inode
        self.name = name
        self.protected = False  # known only of a mapping whose pages were looked at: `resident`


# struct procmap_query of include/uapi/linux/fs.h (Linux 6.11): size, flags, address, then the answer: start, end,
# flags, page size, offset, inode, major, minor, and the sizes and addresses of buffers for name and build id
_QUERY = struct.Struct("=9Q4I2Q")
_PROCMAP_QUERY = 0xC0686611
_COVERING_OR_NEXT = 0x10
_WRITABLE, _SHARED = 2, 8
_name = ctypes.create_string_buffer(4096)
_name_address = ctypes.addressof(_name)
_has_procmap_query = True


def vmas(maps_fd: int, start: int, end: int) -> Iterator[Vma]:
    """The mappings that overlap [start, end), in order of address.

    One ioctl a mapping from Linux 6.11 on, the text of maps before.
    """
    global _has_procmap_query
    if _has_procmap_query:
        try:
            for vma in _query_vmas(maps_fd, start, end):
                yield vma
                start = vma.end
            return
        except OSError as error:
            if error.errno == errno.ENOTTY:
                _has_procmap_query = False
            elif error.errno != errno.ENAMETOOLONG:  # a file of a path longer than PATH_MAX
                raise
    for vma in parse_maps(read_all(maps_fd).decode(errors="surrogateescape")):
        if vma.start < end and start < vma.end:
            yield vma


def _query_vmas(maps_fd: int, start: int, end: int) -> Iterator[Vma]:
    query = bytearray(_QUERY.size)
    while start < end:
        _QUERY.pack_into(
            query, 0, _QUERY.size, _COVERING_OR_NEXT, start, 0, 0, 0, 0, 0, 0, 0, 0, len(_name), 0, _name_address, 0
        )
        try:
            fcntl.ioctl(maps_fd, _PROCMAP_QUERY, query)
        except FileNotFoundError:  # no mapping from here on
            return
        _, _, _, low, high, flags, _, offset, inode, _, _, name_size, _, _, _ = _QUERY.unpack(query)
        if low >= end:
            return
        name = ctypes.string_at(_name_address, name_size - 1).decode(errors="surrogateescape") if name_size else ""
        yield Vma(low, high, flags & _WRITABLE != 0, flags & _SHARED != 0, offset, inode, name)
        start = high


def parse_maps(text: str) -> Iterator[Vma]:
    """The mappings in the text of /proc/PID/maps."""
    for line in _lines(text):
        yield _parse_line(line)


def _lines(text: str) -> list[str]:
    """Of a name the kernel escapes no other end of a line than this one, and str.splitlines knows many more."""
    return text.removesuffix("\n").split("\n") if text else []


def _parse_line(line: str) -> Vma:
    fields = line.split(maxsplit=5)
    low, _, high = fields[0].partition("-")
    mode = fields[1]
    return Vma(
        int(low, 16),
        int(high, 16),
        mode[1] == "w",
        mode[3] == "s",
        int(fields[2], 16),
        int(fields[4]),
        fields[5] if len(fields) > 5 else "",
    )


def flagged_vmas(smaps_fd: int) -> Iterator[tuple[Vma, frozenset[str]]]:
    """Each mapping of /proc/PID/smaps with its VmFlags (`lo` locked, `io` and `pf` device memory ...).

    The kernel looks at every page for it: it takes the longer, the more memory there is.
    """
    return vma_flags(read_all(smaps_fd).decode(errors="surrogateescape"))


def vma_flags(text: str) -> Iterator[tuple[Vma, frozenset[str]]]:
    """Each mapping in the text of /proc/PID/smaps with its VmFlags (`lo` locked, `io` and `pf` device memory ...)."""
    vma: Vma | None = None
    for line in _lines(text):
        if line.startswith("VmFlags:"):
            if vma is not None:
                yield vma, frozenset(line.split()[1:])
        elif line[0] in "0123456789abcdef":
            vma = _parse_line(line)


# struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted, category_mask,
# category_anyof_mask, return_mask; struct page_region: start, end, categories (Linux 6.7)
_SCAN = struct.Struct("=12Q")
_PAGEMAP_SCAN = 0xC0606610
_IS_WRITTEN, _IS_FILE, _IS_PRESENT, _IS_ZERO_PAGE = 1 << 1, 1 << 2, 1 << 3, 1 << 5
_REGIONS = 512
_regions = (ctypes.c_uint64 * (3 * _REGIONS))()
_regions_address = ctypes.addressof(_regions)
_has_pagemap_scan = True

# bits of an entry of pagemap (Documentation/admin-guide/mm/pagemap.rst)
_PM_PRESENT = 1 << 63
_PM_FILE = 1 << 61
_PM_PROTECTED = 1 << 57


def anonymous_pages(pagemap_fd: int, start: int, end: int) -> list[tuple[int, int]]:
    """The ranges in [start, end) whose pages are resident and anonymous: no file, no shared memory, no zero page."""
    return resident(pagemap_fd, start, end)[0]


def resident(pagemap_fd: int, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The `anonymous_pages`, and those of them that a userfaultfd protects: to write to one faults.

    By PAGEMAP_SCAN from Linux 6.7 on; before, from the entries of pagemap, where the zero page counts as anonymous.
    """
    global _has_pagemap_scan
    if _has_pagemap_scan:
        try:
            return _scan(pagemap_fd, start, end)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise
            _has_pagemap_scan = False
    return _read_entries(pagemap_fd, start, end)


def _scan(pagemap_fd: int, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    found: list[tuple[int, int]] = []
    protected: list[tuple[int, int]] = []
    argument = bytearray(_SCAN.size)
    not_wanted = _IS_FILE | _IS_ZERO_PAGE
    while start < end:
        _SCAN.pack_into(
            argument, 0, _SCAN.size, 0, start, end, 0, _regions_address, _REGIONS, 0,
            not_wanted, not_wanted | _IS_PRESENT, 0, _IS_WRITTEN,
        )  # fmt: skip
        count = fcntl.ioctl(pagemap_fd, _PAGEMAP_SCAN, argument)
        for i in range(count):
            pages = _regions[3 * i], _regions[3 * i + 1]
            found.append(pages)
            if not _regions[3 * i + 2]:
                protected.append(pages)
        start = _SCAN.unpack(argument)[4]
    return found, protected


def _read_entries(pagemap_fd: int, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    found: list[tuple[int, int]] = []
    protected: list[tuple[int, int]] = []
    chunk = 1 << 16  # pages a read: 512 KiB of entries
    for address in range(start, end, chunk * PAGE_SIZE):
        pages = min(chunk, (end - address) // PAGE_SIZE)
        entries = memoryview(os.pread(pagemap_fd, pages * 8, address // PAGE_SIZE * 8)).cast("Q")
        for page, entry in enumerate(entries):
            if entry & _PM_PRESENT and not entry & _PM_FILE:
                low = address + page * PAGE_SIZE
                if found and found[-1][1] == low:
                    found[-1] = (found[-1][0], low + PAGE_SIZE)
                else:
                    found.append((low, low + PAGE_SIZE))
                if entry & _PM_PROTECTED:
                    protected.append((low, low + PAGE_SIZE))
    return found, protected


def read_all(fd: int) -> bytes:
    """The whole of a file in /proc through a descriptor that may have been read before."""
    parts = []
    offset = 0
    while part := os.pread(fd, 1 << 16, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def open_file(pid: int, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of /proc/PID/NAME.

    Raises PermissionError for an undumpable process, FileNotFoundError or ProcessLookupError for one that is gone.
    """
    return in_proc(f"{pid}/{name}", flags)


class Status:
    """/proc/PID/status at one moment; of a thread as well, by its tid. Each read costs the kernel 20 us."""

    def __init__(self, pid: int) -> None:
        """FileNotFoundError or ProcessLookupError without the process."""
        self._text = b"\n" + read_file(f"{pid}/status")

    def __getitem__(self, field: str) -> str:
        """KeyError when this kernel has no such field."""
        _, found, rest = self._text.partition(b"\n" + field.encode() + b":")
        if not found:
            raise KeyError(field)
        return rest[: rest.index(b"\n")].decode(errors="replace").strip()


def have_memory(tids: Iterable[int]) -> bool:
    """Whether any of the tasks uses memory: kernel threads don't, nor do tasks that have ended or are far in exit."""
    for tid in tids:
        try:
            Status(tid)["VmSize"]
        except (KeyError, FileNotFoundError, ProcessLookupError):
            continue
        return True
    return False


def status_field(pid: int, field: str) -> str:
    """One field of /proc/PID/status, as `Status` has it."""
    return Status(pid)[field]


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state first), whatever the name of the program holds."""
    with open(f"{pid}/stat", encoding="utf-8", errors="replace", opener=in_proc) as stat:
        return stat.read().rpartition(")")[2].split()


_PF_IO_WORKER, _PF_USER_WORKER = 0x10, 0x4000  # include/linux/sched.h; the second since Linux 6.4, for vhost as well


def works_for_kernel(tid: int) -> bool:
    """Whether a thread of a process is one of the kernel's own, as io_uring makes them: it never is in user space."""
    try:
        return bool(int(stat_fields(tid)[6]) & (_PF_IO_WORKER | _PF_USER_WORKER))
    except (FileNotFoundError, ProcessLookupError):
        return False


def stack_top(pid: int) -> int:
    """The address where the stack of a process began at exec, 0 without the right to know (startstack in stat)."""
    return int(stat_fields(pid)[25])


def start_time(pid: int) -> str:
    """When a process was started, in ticks: with its pid that tells it from all others."""
    return stat_fields(pid)[19]


def is_deep_asleep(tid: int) -> bool:
    """Whether a task can't come to a stop soon: it sleeps where no signal wakes it, as in vfork, or has ended."""
    try:
        return stat_fields(tid)[0] in "DZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def heap_start(pid: int) -> int:
    """The lowest address that the program break may be set to, 0 without the right to know (start_brk in stat)."""
    return int(stat_fields(pid)[44])


def executable(pid: int) -> str:
    """The path of the program that a process executes, '?' when it is gone or does not let us see."""
    try:
        return os.readlink(f"{pid}/exe", dir_fd=proc_directory())
    except OSError:
        return "?"


def descriptors(pid: int) -> dict[int, str]:
    """What each descriptor of a process leads to, "" where that can't be told: its path may be too long.

    OSError where we may not look, or it is gone.
    """
    found = {}
    for fd in names_in_proc(f"{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"{pid}/fd/{fd}", dir_fd=proc_directory())
        except FileNotFoundError:  # closed meanwhile
            continue
        except OSError:
            found[int(fd)] = ""
    return found


def has_threads(pid: int) -> bool:
    """Whether a process has more tasks than its first."""
    return os.stat(f"{pid}/task", dir_fd=proc_directory()).st_nlink > 3


def tasks(pid: int) -> list[int]:
    """The tids of a process, in no order; empty when it is gone."""
    try:
        return [int(name) for name in names_in_proc(f"{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(pid: int, tid: int | None = None) -> list[int]:
    """The children that one thread of a process has made or inherited, the first thread if none is named.

    FileNotFoundError also where the kernel does not tell (CONFIG_PROC_CHILDREN).
    """
    with open(f"{pid}/task/{tid or pid}/children", encoding="ascii", opener=in_proc) as file:
        return [int(child) for child in file.read().split()]


def sysctl(name: str) -> str:
    """The value of /proc/sys/NAME."""
    with open(f"sys/{name}", encoding="ascii", opener=in_proc) as file:
        return file.read().strip()
