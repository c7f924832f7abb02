# SPDX-License-Identifier: MIT
"""The keeper: a task inside the program that holds its memory until it has been wiped.

A process that dies gives its memory back in exit, where nothing can be caught reliably: SIGKILL skips the exit stop
of ptrace when it arrives late in the call (431 of 1000 times on Linux 6.18). But memory is given back by the *last*
task that uses it. The keeper is one more such task, asleep in pause(2) with every signal blocked: however the
program ends, its memory outlives it, and is wiped through the keeper.

A second task, the worker, is at hand for calls that must be executed inside the memory. It stays in a ptrace stop
and dies with the supervisor. The keeper itself is never used for that: a supervisor that is killed lets go of all it
traces, and a task caught between an injected call and its next stop would run on into the program's code.

Both share nothing but the memory: their copy of the descriptors is closed, they are in a session of their own,
and they are no children of the program. A child, even one that sends no signal, would show in a wait with __WALL,
so they are made by a middle task that exits at once, which leaves them to the supervisor as the nearest subreaper.
"""

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterator

from mlockwipe.linux import procfs, ptrace
from mlockwipe.linux.arch import PAGE_SIZE, Abi
from mlockwipe.linux.libc import function
from mlockwipe.linux.mman import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
)
from mlockwipe.linux.prctl import PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS
from mlockwipe.linux.seccomp_filter import FLAG_TSYNC, SET_MODE_FILTER
from mlockwipe.linux.wait import WALL, TaskGone
from mlockwipe.memory.filters import OWN_PRCTL
from mlockwipe.memory.inject import Injection
from mlockwipe.memory.proc_files import Files

NAME = b"mlockwipe-keep"

_AT_FDCWD = -100
_AT_SYSINFO_EHDR = 33
_CAP_SYS_ADMIN = 1 << 21
_LARGEST_READ = 0x7FFFF000  # read(2) transfers no more in one call

_getcpu = function("sched_getcpu", ctypes.c_int)
_vdso_offsets: dict[int, int] = {}


class Keeper:
    """The keeper of one address space, and its worker."""

    def __init__(self, pid: int, abi: Abi, instruction: int) -> None:
        self.pid = pid
        self.abi = abi
        self.instruction = instruction
        self.files: Files
        self.worker: Injection
        self.whole_process = False  # whether all threads of the process got the filter that came with the keeper
        self._zero_fd: int | None = None

    @classmethod
    def create(
        cls, tid: int, status: procfs.Status, filter_program: bytes | None, like: "Keeper | None" = None
    ) -> "Keeper":
        """Make a keeper from a stopped task, and add `filter_program` to its process as `add_filter` does.

        `like` is the keeper of the parent, after a fork. TaskGone when the task dies meanwhile; OSError when the
        kernel refuses the tasks (RLIMIT_NPROC, a pids cgroup), the files or the filter.
        """
        abi, instruction = (like.abi, like.instruction) if like else system_call_instruction(tid)
        keeper: Keeper | None = None
        with _on_this_cpu():
            try:
                with Injection(tid, abi, instruction) as program:
                    made = cls(_clone_aside(program), abi, instruction)

                    def add_filter(scratch: int) -> None:
                        if filter_program is not None:
                            made.whole_process = made._add_filter(program, status, filter_program, scratch)

                    # Not EXITKILL any more: from here on it outlives its supervisor. TRACEEXIT: if killed, it halts.
                    made._settle(ptrace.O_TRACEEXIT, add_filter)
                    keeper = made
            except TaskGone:
                if keeper is None:
                    raise
        return keeper  # also of a task that has just died: the keeper has its memory

    @classmethod
    def create_mortal(
        cls, tid: int, like: "Keeper | None", meanwhile: contextlib.AbstractContextManager[None]
    ) -> "Keeper":
        """As `create`, but a keeper that dies with the supervisor, and without a filter.

        `meanwhile` is what holds as long as the stopped task itself executes calls for us. It must give the task
        O_EXITKILL, which the keeper inherits.
        """
        abi, instruction = (like.abi, like.instruction) if like else system_call_instruction(tid)
        keeper: Keeper | None = None
        with _on_this_cpu():
            try:
                with meanwhile, Injection(tid, abi, instruction) as program:
                    keeper = cls(_clone_aside(program), abi, instruction)
            except TaskGone:
                if keeper is None:
                    raise
            keeper._settle(ptrace.O_TRACEEXIT | ptrace.O_EXITKILL)
        return keeper

    def _settle(self, options: int, add_filter: Callable[[int], None] | None = None) -> None:
        """Make a newborn task the keeper, with its worker; failing that, end it.

        `add_filter` is given the address of a page to work with.
        """
        try:
            self._become_keeper(options, add_filter)
        except BaseException:
            self.let_go()
            raise

    def _become_keeper(self, options: int, add_filter: Callable[[int], None] | None) -> None:
        with Injection(self.pid, self.abi, self.instruction) as task:
            task.call("close_range", 0, 0xFFFFFFFF, 0)
            task.call("setsid")
            self._open_files(task)
            with self._scratch(task, NAME + b"\0/\0") as scratch:
                task.call("prctl", PR_SET_NAME, scratch, 0, 0, 0)
                task.call("chdir", scratch + len(NAME) + 1)
                if add_filter is not None:
                    add_filter(scratch)
            worker, _ = task.clone(CLONE_PARENT | CLONE_FILES | CLONE_FS)
            self.worker = Injection(worker, self.abi, self.instruction).__enter__()
            task.point_at("pause")
            ptrace.set_options(self.pid, options)
            ptrace.cont(self.pid)

    def _open_files(self, task: Injection) -> None:
        try:
            self.files = Files(self.pid)
        except PermissionError:
            # a child of an undumpable process: /proc is closed to us until it is dumpable
            task.call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
            try:
                self.files = Files(self.pid)
            finally:
                task.call("prctl", PR_SET_DUMPABLE, 0, OWN_PRCTL, 0, 0)

    @contextlib.contextmanager
    def _scratch(self, task: Injection, content: bytes) -> Iterator[int]:
        """The address of a page with `content`, mapped for the while."""
        protection, flags = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
        address = checked_result(
            task.call("mmap", 0, PAGE_SIZE, protection, flags, 0xFFFFFFFF, 0), "mmap for the keeper"
        )
        try:
            os.pwrite(self.files.memory, content, address)
            yield address
        finally:
            task.call("munmap", address, PAGE_SIZE)

    def add_filter(self, tid: int, status: procfs.Status, code: bytes) -> bool:
        """Add a filter to every thread of a stopped task's process at once, running ones too.

        False when only this thread has got it: SECCOMP_FILTER_FLAG_TSYNC is refused when the threads have different
        filters already.
        """
        with (
            Injection(tid, self.abi, self.instruction) as program,
            self._scratch(self.worker, b"") as scratch,
        ):
            return self._add_filter(program, status, code, scratch)

    def _add_filter(self, program: Injection, status: procfs.Status, code: bytes, scratch: int) -> bool:
        layout = "=HxxxxxxQ" if program.abi.word == 8 else "=HxxI8x"  # struct sock_fprog, in 16 bytes
        os.pwrite(self.files.memory, struct.pack(layout, len(code) // 8, scratch + 16) + code, scratch)
        if status["NoNewPrivs"] == "0" and not int(status["CapEff"], 16) & _CAP_SYS_ADMIN:
            program.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        result = program.call("seccomp", SET_MODE_FILTER, FLAG_TSYNC, scratch)
        if result > 0:  # the thread that has other filters
            result = program.call("seccomp", SET_MODE_FILTER, 0, scratch)
            checked_result(result, "seccomp(SECCOMP_SET_MODE_FILTER)")
            return False
        checked_result(result, "seccomp(SECCOMP_SET_MODE_FILTER)")
        return True

    def read_zeros(self, start: int, end: int) -> None:
        """Let the kernel clear [start, end), writable memory, by reading /dev/zero into it.

        OSError when there is no /dev/zero (in a chroot) or the memory can't be written; TaskGone without worker.
        """
        if self._zero_fd is None:
            with self._scratch(self.worker, b"/dev/zero\0") as path:
                result = self.worker.call("openat", _AT_FDCWD, path, os.O_RDONLY, 0)
            self._zero_fd = checked_result(result, "open(/dev/zero)")
        while start < end:
            length = min(end - start, _LARGEST_READ)
            start += checked_result(self.worker.call("read", self._zero_fd, start, length), "read(/dev/zero)")

    def program_break(self) -> int:
        """Where the heap ends. OSError when the kernel does not tell; TaskGone without worker."""
        return checked_result(self.worker.call("brk", 0), "brk(0)")

    def let_go(self) -> None:
        """End both tasks, and with them the address space if nobody else uses it; returns when they are gone."""
        if hasattr(self, "files"):
            self.files.close()
        if hasattr(self, "worker"):
            end_task(self.worker.tid)
        end_task(self.pid)


@contextlib.contextmanager
def _on_this_cpu() -> Iterator[None]:
    """Stay on one CPU, with the tasks that are ours: waking one on another CPU takes longer than what it does."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_getcpu()})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _bring_here(pid: int) -> None:
    with contextlib.suppress(PermissionError):  # it has changed its user, and CAP_SYS_NICE is not ours
        os.sched_setaffinity(pid, os.sched_getaffinity(0))


def _clone_aside(program: Injection) -> int:
    """A task that shares the program's memory and is no child of it, in its first stop."""
    middle, middle_there = program.clone()
    pid = 0
    try:
        try:
            _bring_here(middle)
            with Injection(middle, program.abi, program.instruction) as between:
                pid, _ = between.clone()  # inherits the CPU
        finally:
            end_task(middle)
            with contextlib.suppress(TaskGone):  # then the keeper has the memory of a program that is dead
                program.call("wait4", middle_there, 0, WALL, 0)
    except BaseException:
        if pid:
            end_task(pid)
        raise
    return pid


def end_task(pid: int) -> None:
    """Kill a task that is ours alone and reap it, through its exit stop if it has one."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        ptrace.cont(pid)  # SIGKILL does not wake a task from its exit stop (Linux 6.1 and later)
    while True:
        try:
            result = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | WALL)
        except ChildProcessError:
            return
        if result is None or result.si_code not in (os.CLD_TRAPPED, os.CLD_STOPPED):
            return
        with contextlib.suppress(ProcessLookupError):
            ptrace.cont(pid)


def checked_result(result: int, attempted: str) -> int:
    if result < 0:
        raise OSError(-result, f"{attempted}: {os.strerror(-result)}")
    return result


def system_call_instruction(tid: int) -> tuple[Abi, int]:
    """The ABI of the code that a stopped task runs, and a system-call instruction that it can be pointed at.

    The vdso has one, and programs leave the vdso alone; failing that, the one that the task has just executed.
    """
    try:
        registers = ptrace.get_registers(tid)
    except ProcessLookupError:
        raise TaskGone(tid) from None
    abi = registers.abi
    vdso = _vdso(tid, abi.word)
    if vdso:
        offset = _vdso_offsets.get(abi.audit_arch)
        if offset is None:
            with contextlib.suppress(OSError), open(f"/proc/{tid}/mem", "rb", buffering=0) as memory:
                memory.seek(vdso)
                offset = memory.read(2 * PAGE_SIZE).find(abi.instruction)
                _vdso_offsets[abi.audit_arch] = offset
        if offset is not None and offset >= 0:
            return abi, vdso + offset
    return abi, registers.executed_at()


def _vdso(tid: int, word: int) -> int:
    """The address of the vdso, from the auxiliary vector; 0 without one."""
    with contextlib.suppress(OSError), open(f"/proc/{tid}/auxv", "rb") as auxv:
        for key, value in struct.iter_unpack("=2I" if word == 4 else "=2Q", auxv.read()):
            if key == _AT_SYSINFO_EHDR:
                return int(value)
    return 0
