# SPDX-License-Identifier: MIT
"""What is done, under which kernels, and what must be true of the counts before they are believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from mlockwipe_lab.bench.sizes import size_name
from mlockwipe_lab.bench.statistics import quartiles


@dataclass(frozen=True)
class Work:
    """One kind of work that workloads.c does. `pages`: how many are released each time, 0 where it is not about
    pages. `wiped`: how many of them init_mlocked_on_free must zero, None where that is not known."""

    name: str
    title: str
    pages: int = 0
    wiped: int | None = 0


SHARES = (10, 25, 50, 75, 90)  # per cent of the memory that is locked; workloads.c has them too
# KiB, and how many munmaps; workloads.c has them too
SIZES = {4: 64, 64: 16, 1 << 10: 4, 16 << 10: 1, 256 << 10: 1, 1 << 20: 1}


def _sized(kib: int, times: int, locked: bool) -> Work:
    pages = times * kib // 4
    title = f"munmap of {size_name(kib)}" if times == 1 else f"{times} munmaps of {size_name(kib)}"
    how, told = ("locked", "locked") if locked else ("unlocked", "never locked")
    return Work(f"unmap-{kib}k-{how}", f"{title}, {told}", pages, pages if locked else 0)


PROGRAMS = (
    Work("hackbench", "hackbench, 2 groups of 40 tasks"),
    Work("compile", "gcc -O2 of 70,000 lines of Linux"),
    Work("gpg", "gpg with gpg-agent, 5 times sign, encrypt, decrypt", wiped=None),
    Work("memcached", "memcached -k, 2,000 times set and get", wiped=None),
    Work("web-service", "a web service in Python, 200 requests", wiped=None),  # where there is no memfd_secret
)
LOCKING = {"gpg", "memcached"}  # which lock memory everywhere, and do not unlock all of it

WORKS = (
    Work("unmap-locked", "munmap of 64 MiB, locked", 16384, 16384),
    Work("unmap-unlocked", "munmap of 64 MiB, never locked", 16384, 0),
    Work("unmap-munlocked", "munmap of 64 MiB, locked and munlocked", 16384, 0),
    Work("unmap-mthp", "munmap of 64 MiB, locked, folios of 64 KiB", 16384, 16384),
    Work("unmap-thp", "32 munmaps of 2 MiB, locked, huge pages", 16384, 16384),
    Work("unmap-mthp-1g", "munmap of 1 GiB, locked, folios of 64 KiB", 262144, 262144),
    Work("unmap-thp-1g", "munmap of 1 GiB, locked, huge pages", 262144, 262144),
    *(_sized(kib, times, locked) for kib, times in SIZES.items() for locked in (True, False)),
    Work("exit-locked", "exit with 64 MiB locked", 16384, 16384),
    Work("fork-exec", "100 times fork, exec and exit", 0, 0),
    Work("fork-locked", "fork with 16 MiB locked, exit of the child", 4096, 0),
    Work("fork-locked-write", "fork with 16 MiB locked, the parent writes to all", 4096, 0),
    *(Work(f"unmap-share-{n}", f"munmap of 64 MiB, {n} % locked", 16384, 16384 * n // 100) for n in SHARES),
    *PROGRAMS,
)
NOT_EVERYWHERE = {"unmap-mthp", "unmap-mthp-1g"}  # Linux 6.1 has only huge pages

# What calibrates: a loop of so many instructions, and a page cleared by the one instruction that Linux has for it.
LOOP, LOOP_INSTRUCTIONS = "loop", 2_000_000
CLEARING = "rep-stosq"

# What the kernel is told; what follows '--' are the parameters with which process 1 loads the module.
_OPTION = {"patched": "init_mlocked_on_free={}", "debian": "-- enabled={}"}


@dataclass(frozen=True)
class Configuration:
    """`kernel`: its kind, 'patched', 'unpatched' or 'debian'. `option`: of init_mlocked_on_free, None where there is
    none."""

    name: str
    kernel: str
    option: int | None
    init_on_free: int = 0
    init_on_alloc: int = 0

    @property
    def append(self) -> tuple[str, ...]:
        """Words for the kernel's command line."""
        option = "" if self.option is None else _OPTION[self.kernel].format(self.option)
        return (f"init_on_alloc={self.init_on_alloc}", f"init_on_free={self.init_on_free}", *option.split())


@dataclass(frozen=True)
class Comparison:
    """What shows the costs of the carrier of that name. `configurations`: a kernel without it, with it off and with
    it on, and init_on_free and init_on_alloc instead of it, are the first five."""

    name: str
    configurations: tuple[Configuration, ...]


_COMPARISONS = (
    Comparison(
        "boot-option",
        (
            Configuration("unpatched", "unpatched", None),
            Configuration("off", "patched", 0),
            Configuration("on", "patched", 1),
            Configuration("init_on_free", "unpatched", None, init_on_free=1),
            Configuration("init_on_alloc", "unpatched", None, init_on_alloc=1),
            Configuration("off, init_on_free", "patched", 0, init_on_free=1),
        ),
    ),
    Comparison(
        "module",
        (
            Configuration("stock", "debian", None),
            Configuration("off", "debian", 0),
            Configuration("on", "debian", 1),
            Configuration("init_on_free", "debian", None, init_on_free=1),
            Configuration("init_on_alloc", "debian", None, init_on_alloc=1),
        ),
    ),
)
COMPARISONS = {comparison.name: comparison for comparison in _COMPARISONS}


@dataclass(frozen=True)
class Sample:
    """What one kind of work took, each time that it was done. `wiped`: the pages that init_mlocked_on_free
    zeroed, by its own count, -1 where there is none. `system`: nanoseconds that the kernel took, on all CPUs."""

    took: Sequence[int]
    wiped: Sequence[int]
    system: Sequence[int] = ()

    @property
    def median(self) -> float:
        return median(self.took)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.took)

    def differs(self, other: "Sample") -> bool:
        """Whether the difference is more than what one kernel shows from time to time, and from boot to boot."""
        (low, high), (other_low, other_high) = self.quartiles, other.quartiles
        return low > other_high or high < other_low


Samples = Mapping[str, Sample]


def together(boots: Sequence[Samples]) -> Samples:
    """What was taken in all of the boots, as if it had been one."""
    return {name: _joined([boot[name] for boot in boots]) for name in boots[0]}


def _joined(samples: Sequence[Sample]) -> Sample:
    lists = zip(*((sample.took, sample.wiped, sample.system) for sample in samples), strict=True)
    return Sample(*(tuple(chain.from_iterable(one)) for one in lists))


_TICK = 10_000_000  # nanoseconds, the longest: system time may be told in whole ones

Clock = tuple[str, ...]  # options of QEMU that decide what a guest's time is

# One emulated CPU whose time goes on by one nanosecond with every instruction. Nothing may differ from one machine to
# the next: not the time at which it begins, which is after that of every key.
COUNTING: Clock = (
    *("-accel", "tcg", "-icount", "shift=0,sleep=off", "-rtc", "base=2037-01-01,clock=vm"),
    *("-smp", "1", "-cpu", "qemu64"),
)


def timing(acceleration: str, cpus: int) -> Clock:
    """By 'kvm' or 'tcg'."""
    return ("-accel", acceleration, "-rtc", "base=2037-01-01", "-smp", str(cpus), "-cpu", "max")


def mistake(samples: Samples, configuration: Configuration, console: str, clock: Clock = COUNTING) -> str | None:
    """Why these counts are not what they are taken for; None when they are."""
    alloc, free = ("on" if on else "off" for on in (configuration.init_on_alloc, configuration.init_on_free))
    heap = f"heap alloc:{alloc}, heap free:{free}"
    if heap not in console:  # mm/mm_init.c: report_meminit
        return f"the kernel does not say '{heap}'"
    wanted = {LOOP, CLEARING, *(work.name for work in WORKS)} - NOT_EVERYWHERE
    if missing := wanted - samples.keys():
        return f"it has not measured {', '.join(sorted(missing))}"
    if clock == COUNTING and abs(samples[LOOP].median - LOOP_INSTRUCTIONS) > LOOP_INSTRUCTIONS / 1000:
        return f"its clock does not count instructions: {LOOP_INSTRUCTIONS} took {samples[LOOP].median:.0f}"
    cpus = int(clock[clock.index("-smp") + 1])
    for work in WORKS:
        if work.name not in samples:
            continue
        sample = samples[work.name]
        if any(system > cpus * (took + _TICK) for took, system in zip(sample.took, sample.system, strict=False)):
            return f"{work.title}: more system time than {cpus} CPUs have"
        expected = {None: -1, 0: 0, 1: work.wiped}[configuration.option]
        counted = set(sample.wiped)
        if expected is None:
            if work.name in LOCKING and 0 in counted:
                return f"{work.title}: the kernel has zeroed none of its pages"
        elif counted != {expected}:
            return f"{work.title}: the kernel has zeroed {sorted(counted)} pages, not {expected}"
    return None
