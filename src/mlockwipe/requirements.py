# SPDX-License-Identifier: MIT
"""What a machine must allow before a supervisor can work on it: every requirement, and the sentence for its lack.

`run` and `attach` refuse with these sentences, and `status` shows them. A function that begins with `why_no` returns
a sentence, or None where nothing is lacking. `run` imports this at its start: nothing is imported here that the
interpreter has not loaded by then.
"""

import errno
import os

from mlockwipe.errors import Refused
from mlockwipe.linux.read_file import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ARCHITECTURES = ("x86_64",)

# SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: without it a signal that arrives while the supervisor attaches shows up in
# the program as an EINTR that mlock(2) never gives.
OLDEST_KERNEL = (5, 19)
OLDEST = "{}.{}".format(*OLDEST_KERNEL)

_FEWEST_FILES = 8  # with which the supervisor starts

NO_LIBSECCOMP = "libseccomp is missing: install it (Debian: apt-get install libseccomp2)"
NO_NOTIFICATION = "this kernel has no seccomp user notification: boot one with CONFIG_SECCOMP_FILTER"
NO_PTRACE = (
    "ptrace is refused here: allow it in the seccomp profile of the container, or set "
    "kernel.yama.ptrace_scope to 1 or less"
)

SUPERVISOR = "mlockwipe-super"  # the name that every supervisor takes in /proc/PID/comm, which holds 15 characters

CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21


def check_machine() -> None:
    """Refused where no supervisor can run, as far as that is known before anything is started."""
    system = os.uname()
    lack = (
        why_no_kernel(system.machine, system.release)
        or why_no_files(os.sysconf("SC_OPEN_MAX"))
        or why_no_proc()
        or why_no_tracing(ptrace_scope(), may_trace)
    )
    if lack is not None:
        raise Refused(lack)


def why_no_kernel(architecture: str, release: str) -> str | None:
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return f"the supervisor runs on {known} only, this is {architecture}: use a kernel that wipes"
    if (parse_release(release) or OLDEST_KERNEL) < OLDEST_KERNEL:
        return f"Linux {release} is too old: {OLDEST} or later is needed for killable notifications"
    return None


def parse_release(release: str) -> tuple[int, int] | None:
    """(6, 1) of '6.1.0-18-amd64', None when it is no version."""
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if major.isascii() and major.isdigit() and minor.isdigit():
        return int(major), int(minor)
    return None


def why_no_files(most: int) -> str | None:
    """`most`: how many files may be open, -1 for any number."""
    if 0 <= most < _FEWEST_FILES:
        return f"only {most} files may be open, which is too few to supervise anything: ulimit -n 64"
    return None


def why_no_proc() -> str | None:
    if not os.path.exists("/proc/self/status"):  # it is not there either where /proc is that of other processes
        return "/proc is not mounted here: mount -t proc proc /proc"
    return None


def ptrace_scope() -> str | None:
    """What Yama lets trace: '0' one's own processes, '1' descendants, '2' with CAP_SYS_PTRACE only, '3' nothing; None
    without Yama (Documentation/admin-guide/LSM/Yama.rst)."""
    try:
        return read_file("sys/kernel/yama/ptrace_scope").decode().strip()
    except FileNotFoundError:
        return None


def why_no_tracing(scope: str | None, may_trace: "Callable[[], bool]") -> str | None:
    """Why one's own descendants can't be traced. `may_trace`: whether it is with CAP_SYS_PTRACE."""
    if scope in (None, "0", "1") or (scope == "2" and may_trace()):
        return None
    remedy = " or run as root" if scope == "2" else " (that takes a reboot)"
    return f"kernel.yama.ptrace_scope is {scope}, which forbids tracing: set it to 1{remedy}"


def why_no_attaching(scope: str | None) -> str | None:
    """Why other processes of one's own can't be traced."""
    if scope in (None, "0"):
        return None
    return "kernel.yama.ptrace_scope lets only its ancestors trace it: run mlockwipe attach as root"


def may_trace() -> bool:
    return has_capability(CAP_SYS_PTRACE)


def supervisor_above(pid: int) -> int | None:
    """The supervisor that a process was started under by `run`, None where there is none.

    Its name says nothing by itself, for any program may take it. But a supervisor belongs to root or to whom the
    process belongs, and all that it starts is under a filter that it is not under itself.
    """
    try:
        status = read_file(f"{pid}/status")
        filters, user = int(_field(status, b"Seccomp_filters")), _user(status)
        while filters and (pid := int(_field(status, b"PPid"))):
            status = read_file(f"{pid}/status")
            if (
                _field(status, b"Name") == SUPERVISOR.encode()
                and _user(status) in (b"0", user)
                and int(_field(status, b"Seccomp_filters")) < filters
            ):
                return pid
    except OSError:  # it has ended
        pass
    return None


def _user(status: bytes) -> bytes:
    return _field(status, b"Uid").split()[1]


def _field(status: bytes, name: bytes) -> bytes:
    return (b"\n" + status).partition(b"\n" + name + b":")[2].partition(b"\n")[0].strip()


def has_capability(number: int) -> bool:
    """Whether this process has a capability in effect."""
    return int(_field(read_file("self/status"), b"CapEff"), 16) >> number & 1 != 0


def has_no_new_privileges() -> bool:
    """Whether this process, and so all that it starts, may gain no privileges by an exec."""
    return _field(read_file("self/status"), b"NoNewPrivs") == b"1"


def why_no_filter(error: OSError) -> str:
    """Why seccomp(2), or what goes before it, has failed."""
    if error.filename is not None:
        return f"{error.filename} can't be read here: {error.strerror}; a supervisor needs /proc"
    if error.errno == errno.EBUSY:
        return (
            "this process is under a seccomp notification listener already, and the kernel allows one only: start "
            "mlockwipe outside of it"
        )
    if error.errno == errno.EINVAL:
        return f"this kernel has no killable seccomp notification: Linux {OLDEST} or later is needed"
    return f"seccomp is refused here: {error.strerror}; allow seccomp(2) in the profile of the container"
