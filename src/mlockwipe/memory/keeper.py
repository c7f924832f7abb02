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
and they are no children of the program. A child, even one that sends no signal, would show in a wait with __WALL.
Those of a child of the supervisor are its siblings; others are made by a middle task that exits at once, which leaves
them to the supervisor as the nearest subreaper.

The program can write to the memory that they live in, and map its own code where theirs is. So neither can do more
than its work (confinement.py), and the keeper does not even return to user space as long as the supervisor lives:
what would wake it, SIGSTOP or the freezing of a control group say, leaves it in the ptrace stop at the exit of its
call.
"""

import contextlib
import ctypes
import errno
import os
import signal
import struct
from collections.abc import Callable, Iterator
from functools import partial

from mlockwipe.linux import capability, cgroup, procfs, ptrace
from mlockwipe.linux.arch import PAGE_SIZE, RED_ZONE, Abi, Registers
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
from mlockwipe.linux.prctl import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS
from mlockwipe.linux.seccomp_filter import FLAG_TSYNC, SET_MODE_FILTER
from mlockwipe.linux.wait import WALL, Stuck, SyscallStop, TaskGone, await_end, await_stop
from mlockwipe.memory import confinement, zeros
from mlockwipe.memory.filters import OWN_PRCTL
from mlockwipe.memory.inject import BRIEFLY, Injection
from mlockwipe.memory.inject_quietly import injection
from mlockwipe.memory.instruction import another_instruction, system_call_instruction
from mlockwipe.memory.proc_files import Files

NAME = b"mlockwipe-keep"

_ROOM = 2048  # bytes, for the arguments of calls that take them from memory
_CAP_SYS_ADMIN = 1 << 21
_LARGEST_READ = 0x7FFFF000  # read(2) transfers no more in one call

_getcpu = function("sched_getcpu", ctypes.c_int)


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
        cls,
        tid: int,
        status: procfs.Status,
        filter_program: bytes | None,
        like: "Keeper | None" = None,
        reaper: bool = False,
    ) -> "Keeper":
        """Make a keeper from a stopped task, and add `filter_program` to its process as `add_filter` does.

        `like` is the keeper of the parent, after a fork. `reaper`: whether the process has asked for its descendants'
        orphans (PR_SET_CHILD_SUBREAPER). TaskGone when the task dies meanwhile; OSError when the
        kernel refuses the tasks (RLIMIT_NPROC, a pids cgroup), the files or the filter.
        """
        abi, instruction = system_call_instruction(tid, like.instruction if like else None)
        keeper: Keeper | None = None
        with _on_this_cpu():
            try:
                with injection(tid, status, abi, instruction) as program:
                    made = cls(_clone_aside(program, status, reaper=reaper), abi, instruction)

                    def add_filter(room: int) -> None:
                        if filter_program is not None:
                            made.whole_process = made._add_filter(program, status, filter_program, room)

                    # Not EXITKILL any more: from here on it outlives its supervisor. TRACEEXIT: if killed, it halts.
                    made._settle(ptrace.O_TRACEEXIT, program.registers, add_filter)
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
        abi, instruction = system_call_instruction(tid, like.instruction if like else None)
        keeper: Keeper | None = None
        with _on_this_cpu():
            try:
                with meanwhile, injection(tid, procfs.Status(tid), abi, instruction) as program:
                    registers = program.registers
                    # As an orphan, even for process 1 of a PID namespace: that reaps it when it is left as it was.
                    keeper = cls(_clone_orphan(program), abi, instruction)
            except TaskGone:
                if keeper is None:
                    raise
            keeper._settle(ptrace.O_TRACEEXIT | ptrace.O_EXITKILL, registers)
        return keeper

    def _settle(self, options: int, stopped: Registers, add_filter: Callable[[int], None] | None = None) -> None:
        """Make a newborn task the keeper, with its worker; failing that, end it.

        `stopped`: of the task that it was made from, and that stays stopped meanwhile. `add_filter` is given the
        address of memory to work with.
        """
        try:
            self._become_keeper(stopped, add_filter)
            self._go_to_sleep(options)
        except BaseException:
            self.let_go()
            raise

    def _become_keeper(self, stopped: Registers, add_filter: Callable[[int], None] | None) -> None:
        from mlockwipe.linux import limits  # not at the start of every program

        limits.raise_limits(self.pid)
        cgroup.join_ours(self.pid)
        with Injection(self.pid, self.abi, self.instruction, is_ours=True) as task:
            task.call("close_range", 0, 0xFFFFFFFF, 0)
            task.call("setsid")
            with contextlib.ExitStack() as undumpable_again:
                self._open_files(task, undumpable_again)
                with self._room(task, stopped) as room:
                    self._zero_fd = zeros.hand_over(task, self.files.memory, room)
                    undumpable_again.close()
                    content = NAME.ljust(16, b"\0") + b"/\0" + capability.NONE
                    os.pwrite(self.files.memory, content, room)
                    task.call("prctl", PR_SET_NAME, room, 0, 0, 0)
                    task.call("chdir", room + 16)
                    task.call("capset", room + 18, room + 18 + capability.SETS_AT)
                    task.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                    if add_filter is not None:
                        add_filter(room)
                    worker, _ = task.clone(CLONE_PARENT | CLONE_FILES | CLONE_FS)
                    another = partial(another_instruction, self.files, self.abi)
                    self.worker = Injection(worker, self.abi, self.instruction, another, is_ours=True).__enter__()
                    self.worker.patience = BRIEFLY  # its calls wait for nobody
                    ptrace.set_options(worker, ptrace.O_EXITKILL | ptrace.O_TRACESECCOMP)
                    self._confine(self.worker, confinement.worker(self._zero_fd), room)
                    self._confine(task, confinement.KEEPER, room)
            task.point_at("pause")

    def _go_to_sleep(self, options: int) -> None:
        """Let the keeper enter its call, from which it returns only to a stop."""
        try:
            ptrace.set_options(self.pid, ptrace.O_TRACESYSGOOD | ptrace.O_EXITKILL)
            ptrace.cont_to_syscall_stop(self.pid)
            stop = await_stop(self.pid)
            number = ptrace.get_registers(self.pid).number
            if not isinstance(stop, SyscallStop) or number != self.abi.numbers["pause"]:
                raise OSError("the code that a keeper needs was exchanged")
            ptrace.set_options(self.pid, ptrace.O_TRACESYSGOOD | options)
            ptrace.cont_to_syscall_stop(self.pid)
        except ProcessLookupError:
            raise TaskGone(self.pid) from None

    def _open_files(self, task: Injection, undumpable_again: contextlib.ExitStack) -> None:
        try:
            self.files = Files(self.pid)
        except PermissionError:
            # a child of an undumpable process: /proc is closed to us until it is dumpable
            task.call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
            undumpable_again.callback(task.call, "prctl", PR_SET_DUMPABLE, 0, OWN_PRCTL, 0, 0)
            self.files = Files(self.pid)

    @contextlib.contextmanager
    def _room(self, task: Injection, stopped: Registers) -> Iterator[int]:
        """The address of memory to work with for the while.

        A page is mapped. Where that is refused (RLIMIT_AS, RLIMIT_DATA, max_map_count), it is memory below the stack
        of a stopped task, where nothing is in use, and which is left as it was.
        """
        protection, flags = PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
        address = task.call("mmap", 0, PAGE_SIZE, protection, flags, 0xFFFFFFFF, 0)
        if address >= 0:
            try:
                yield address
            finally:
                with contextlib.suppress(TaskGone):  # the keeper itself may not do that any more
                    getattr(self, "worker", task).call("munmap", address, PAGE_SIZE)
            return
        address = (stopped.stack_pointer - RED_ZONE - _ROOM) & -16
        before = os.pread(self.files.memory, _ROOM, address)
        try:
            yield address
        finally:
            os.pwrite(self.files.memory, before, address)

    def _confine(self, task: Injection, calls: "tuple[confinement.Call, ...]", room: int) -> None:
        result = self._seccomp(task, 0, confinement.filter_program(self.abi, calls), room)
        checked_result(result, "seccomp(SECCOMP_SET_MODE_FILTER) in a keeper")

    def add_filter(self, tid: int, status: procfs.Status, code: bytes) -> bool:
        """Add a filter to every thread of a stopped task's process at once, running ones too.

        False when only this thread has got it: SECCOMP_FILTER_FLAG_TSYNC is refused when the threads have different
        filters already.
        """
        with (
            injection(tid, status, self.abi, self.instruction) as program,
            self._room(self.worker, program.registers) as room,
        ):
            return self._add_filter(program, status, code, room)

    def _add_filter(self, program: Injection, status: procfs.Status, code: bytes, room: int) -> bool:
        if status["NoNewPrivs"] == "0" and not int(status["CapEff"], 16) & _CAP_SYS_ADMIN:
            program.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        result = self._seccomp(program, FLAG_TSYNC, code, room)
        if result > 0:  # the thread that has other filters
            result = self._seccomp(program, 0, code, room)
            checked_result(result, "seccomp(SECCOMP_SET_MODE_FILTER)")
            return False
        checked_result(result, "seccomp(SECCOMP_SET_MODE_FILTER)")
        return True

    def _seccomp(self, task: Injection, flags: int, code: bytes, room: int) -> int:
        layout = "=HxxxxxxQ" if task.abi.word == 8 else "=HxxI8x"  # struct sock_fprog, in 16 bytes
        os.pwrite(self.files.memory, struct.pack(layout, len(code) // 8, room + 16) + code, room)
        return task.call("seccomp", SET_MODE_FILTER, flags, room)

    def read_zeros(self, start: int, end: int) -> None:
        """Let the kernel clear [start, end), writable memory, by reading /dev/zero into it.

        OSError when there is no /dev/zero or the memory can't be written; TaskGone without worker.
        """
        if self._zero_fd is None:
            raise OSError(errno.ENODEV, "there is no /dev/zero")
        while start < end:
            length = min(end - start, _LARGEST_READ)
            read = checked_result(self.worker.call("read", self._zero_fd, start, length), "read(/dev/zero)")
            if not read:
                raise OSError(errno.EIO, "read(/dev/zero) brought nothing")
            start += read

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
    # It may have changed its user, and CAP_SYS_NICE is not ours; its control group may not have this CPU (EINVAL).
    with contextlib.suppress(OSError):
        os.sched_setaffinity(pid, os.sched_getaffinity(0))


def _clone_aside(program: Injection, status: procfs.Status, *, reaper: bool = False) -> int:
    """A task that shares the program's memory and is no child of it, in its first stop.

    A process that gets orphans of its own, as a subreaper does, would get this one, too, and wait for its end:
    `reaper` lets it be none for the while. Process 1 of a PID namespace always does; there it is a child that only a
    wait with __WALL or __WCLONE finds, because it sends no signal at its end.
    """
    is_child = int(status["PPid"]) == os.getpid()
    if is_child or status["NSpid"].split()[1:][-1:] == ["1"]:
        pid, _ = program.clone(CLONE_PARENT if is_child else 0)
        _bring_here(pid)
        return pid
    if not reaper:
        return _clone_orphan(program)
    program.call("prctl", PR_SET_CHILD_SUBREAPER, 0, OWN_PRCTL, 0, 0)
    try:
        return _clone_orphan(program)
    finally:
        with contextlib.suppress(TaskGone):
            program.call("prctl", PR_SET_CHILD_SUBREAPER, 1, OWN_PRCTL, 0, 0)


def _clone_orphan(program: Injection) -> int:
    """The same, as a child of whoever gets the orphans of the program."""
    middle, middle_there = program.clone()
    pid = 0
    try:
        try:
            _bring_here(middle)
            with Injection(middle, program.abi, program.instruction, is_ours=True) as between:
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
    with contextlib.suppress(Stuck):  # frozen: it dies when it is thawed, and its end is seen by the tracer's loop
        while not await_end(pid):
            with contextlib.suppress(ProcessLookupError):
                ptrace.cont(pid)


def checked_result(result: int, attempted: str) -> int:
    if result < 0:
        raise OSError(-result, f"{attempted}: {os.strerror(-result)}")
    return result
