# SPDX-License-Identifier: MIT
"""The judge, before programs that do not do what they should."""

import contextlib
import time
from pathlib import Path

import pytest

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.carriers.none import NONE
from mlockwipe.contract.case import KEPT, WIPED, Case
from mlockwipe.contract.judge import judge
from mlockwipe.contract.result import Result
from tests.support.fakes import acting


def make(
    expected: str = WIPED, *, shows: bool = True, status: int = 0, outlives: bool = False, scan: str | None = None
) -> Case:
    """A case whose program is never run: a carrier acts in its place."""
    return Case("W1", "W1-test", expected, "a test", lambda program: None, shows, status, outlives, scan)


def verdict_on(script: str, case: Case, timeout: float = 20.0) -> Result:
    return judge(case, acting(script), timeout=timeout)


@pytest.mark.parametrize(
    ("pages", "expected", "verdict", "dirty"),
    [
        ("ZEROS", WIPED, "wiped", 0),
        ("ZEROS, ZEROS, ZEROS", WIPED, "wiped", 0),
        ("PATTERN", WIPED, "leaked", 1),
        ("ZEROS, PATTERN, ZEROS", WIPED, "leaked", 1),
        ("bytes(4088) + PATTERN[:8]", WIPED, "leaked", 1),
        ("PATTERN[8:16] + bytes(4088)", WIPED, "leaked", 1),
        ("bytes(2048) + PATTERN[:2048], ZEROS", WIPED, "leaked", 1),
        ("b'x' * 4096", WIPED, "failed", 0),
        ("bytes(4095) + b'x', ZEROS", WIPED, "failed", 0),
        ("b'x' * 4096, PATTERN", WIPED, "leaked", 1),
        ("PATTERN", KEPT, "kept", 1),
        ("PATTERN, PATTERN", KEPT, "kept", 2),
        ("ZEROS", KEPT, "damaged", 0),
        ("PATTERN, ZEROS", KEPT, "damaged", 1),
        ("PATTERN[:2048] + bytes(2048)", KEPT, "damaged", 1),
        ("b'x' * 4096", KEPT, "failed", 0),
        ("PATTERN, b'x' * 4096", KEPT, "failed", 1),
    ],
)
def test_the_verdict_is_what_the_pages_hold(pages: str, expected: str, verdict: str, dirty: int) -> None:
    result = verdict_on(f"show({pages})", make(expected))
    assert (result.verdict, result.dirty) == (verdict, dirty)
    assert result.ok == (verdict == expected)


def test_pages_looked_at_early_are_judged_as_they_were_then() -> None:
    script = """
show(PATTERN)
tell(look=1)
os.read(channel, 1)
show(ZEROS)
"""
    result = verdict_on(script, make())
    assert (result.verdict, result.pages, result.dirty) == ("leaked", 2, 1)


def test_a_wipe_after_the_end_of_the_program_is_too_late() -> None:
    # A child that shares the page wipes it when the program is gone, which it learns from a pipe. It holds
    # none of the judge's descriptors but the channel, so that the judge waits for it and could see the zeros
    # if it looked again.
    script = """
import ctypes, mmap, time
page = mmap.mmap(-1, 4096)
page[:] = PATTERN
alive, alive_in_program = os.pipe()
if os.fork() == 0:
    os.close(alive_in_program)
    os.read(alive, 1)
    time.sleep(0.1)
    page[:] = ZEROS
    os._exit(0)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.c_char.from_buffer(page)), 4096)
assert ctypes.CDLL(None).vmsplice(witness, vector, 1, 0) == 4096
tell(shown=1)
os._exit(0)
"""
    assert verdict_on(script, make()).verdict == "leaked"
    assert verdict_on(script, make(outlives=True)).verdict == "wiped"


def test_a_program_that_hangs_has_failed_and_is_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"""
import time
show(ZEROS)
if os.fork() == 0:
    os.setsid()
open({str(pids)!r}, "a").write(f"{{os.getpid()}}\\n")
time.sleep(100)
"""
    start = time.monotonic()
    result = verdict_on(script, make(), timeout=0.5)
    assert (result.verdict, result.reason) == ("failed", "it did not end")
    assert time.monotonic() - start < 10
    assert_gone(pids, count=2)


def test_a_process_left_behind_has_failed_and_is_gone(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"""
import time
show(ZEROS)
if os.fork() == 0:
    open({str(pids)!r}, "a").write(f"{{os.getpid()}}\\n")
    time.sleep(100)
while not os.path.exists({str(pids)!r}):
    time.sleep(0.01)
"""
    result = verdict_on(script, make(), timeout=1.0)
    assert (result.verdict, result.reason) == ("failed", "a process it started did not end")
    assert_gone(pids, count=1)


def assert_gone(pids: Path, count: int) -> None:
    """None of these processes runs any more. Somebody else reaps an orphan, so it may be a zombie for a while."""
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) == count
    for pid in numbers:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # SIGKILL has been sent, but a process ends when it is scheduled.
            while "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                time.sleep(0.01)


def test_a_program_that_ends_before_it_has_shown_anything_has_failed() -> None:
    result = verdict_on("", make())
    assert (result.verdict, result.pages) == ("failed", 0)
    assert "before it had shown anything" in (result.reason or "")


def test_a_case_of_facts_needs_a_fact() -> None:
    assert verdict_on("", make(KEPT, shows=False)).verdict == "failed"
    assert verdict_on("tell(checked=1)", make(KEPT, shows=False)).verdict == "kept"


@pytest.mark.parametrize("script", ["tell(shown=1)", "os.write(witness, ZEROS * 2); tell(shown=1)"])
def test_pages_that_are_not_those_shown_have_failed(script: str) -> None:
    result = verdict_on(script, make())
    assert result.verdict == "failed"
    assert "arrived" in (result.reason or "")


@pytest.mark.parametrize("expected", [WIPED, KEPT])
def test_damaged_content_outweighs_what_the_pages_hold(expected: str) -> None:
    page = "ZEROS" if expected == WIPED else "PATTERN"
    result = verdict_on(f"show({page}); tell(damaged='the file')", make(expected))
    assert (result.verdict, result.reason) == ("damaged", "the file")


def test_a_fact_that_does_not_hold_has_failed_and_says_which() -> None:
    result = verdict_on("show(ZEROS); tell(failed='one'); tell(failed='two')", make())
    assert (result.verdict, result.reason) == ("failed", "one; two")


def test_what_this_machine_cannot_run_is_not_judged() -> None:
    result = verdict_on("tell(failed='follows from it'); tell(cannot='no such call'); show(ZEROS)", make())
    assert (result.verdict, result.reason) == ("needs-ram-scan", "no such call")
    assert not result.ok


def test_what_needs_a_ram_scan_is_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    result = verdict_on(f"open({str(trace)!r}, 'w'); show(ZEROS)", make(scan="two processes map it"))
    assert (result.verdict, result.reason, result.pages) == ("needs-ram-scan", "two processes map it", 0)
    assert not trace.exists()


def test_a_traceback_is_the_reason() -> None:
    result = verdict_on("show(ZEROS); raise ValueError('out of luck')", make())
    assert result.verdict == "failed"
    assert "ValueError: out of luck" in (result.reason or "")


@pytest.mark.parametrize(
    ("end", "status", "verdict"),
    [
        ("os._exit(42)", 42, "wiped"),
        ("os._exit(0)", 42, "failed"),
        ("os._exit(1)", 0, "failed"),
        ("os.kill(os.getpid(), 15)", -15, "wiped"),
        ("os._exit(143)", -15, "wiped"),  # as a shell, or another that ran the program, says it
        ("os._exit(137)", -15, "failed"),
        ("os.kill(os.getpid(), 9)", -15, "failed"),
        ("os.kill(os.getpid(), 9)", 0, "failed"),
    ],
)
def test_the_program_ends_as_the_case_says(end: str, status: int, verdict: str) -> None:
    assert verdict_on(f"show(ZEROS); {end}", make(status=status)).verdict == verdict


def test_a_command_that_does_not_exist_is_an_error_of_the_caller() -> None:
    with pytest.raises(FileNotFoundError):
        judge(make(), Carrier("missing", ("/nonexistent/carrier",)))


def test_nothing_stays_open() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(3):
        verdict_on("show(ZEROS)", make())
    assert descriptors() == before


def test_the_program_gets_the_descriptors_that_its_command_names_and_no_other() -> None:
    script = """
given = {0, 1, 2, witness, channel}
listed = {int(name) for name in os.listdir("/proc/self/fd")}
tell(**{"checked": 1} if len(listed) == len(given) + 1 and given < listed else {"failed": repr(listed)})
"""
    result = verdict_on(script, make(KEPT, shows=False))
    assert result.verdict == "kept", result.reason


def test_files_of_a_case_are_in_a_directory_of_its_own_that_goes_with_it(tmp_path: Path) -> None:
    where = tmp_path / "where"
    verdict_on(f"open('file', 'w'); open({str(where)!r}, 'w').write(os.getcwd())", make())
    assert not Path(where.read_text()).exists()


def test_bare_is_the_command_itself() -> None:
    assert NONE.command(("a", "b")) == ["a", "b"]
