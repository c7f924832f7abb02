# SPDX-License-Identifier: MIT
"""What a file holds, and that the cases of the C library see it change in every view."""

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.cases.l02_file_pages import library_text
from mlockwipe.contract.file_content import in_page_cache, on_disk
from mlockwipe.contract.judge import judge
from tests.support.fakes import Wrapping, patching

(CASE,) = (case for case in all_cases() if case.name == "L2-library-exit")


def test_a_file_holds_the_same_in_the_page_cache_and_on_disk() -> None:
    content = bytes(range(256)) * 1000 + b"odd"
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(content)
        file.flush()
        expected = hashlib.sha256(content).hexdigest()
        assert in_page_cache(file.name) == on_disk(file.name) == expected
        file.seek(100_000)
        file.write(b"!")
        file.flush()
        assert in_page_cache(file.name) == on_disk(file.name) != expected


def test_a_file_of_a_file_system_in_memory_is_read_too() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"content")
        file.flush()
        assert on_disk(file.name) == hashlib.sha256(b"content").hexdigest()


def test_the_library_is_where_its_functions_are() -> None:
    path, start, end = library_text()
    assert "libc" in Path(path).name
    assert end > start


def with_a_library_of_its_own(place: Path, patch: str) -> Wrapping:
    """A carrier that runs the program on a copy of the C library, which may be damaged, after `patch`."""
    path, _, _ = library_text()
    shutil.copy(path, place)
    patched = patching(patch)

    def wrap(command: Sequence[str]) -> list[str]:
        return ["env", f"LD_LIBRARY_PATH={place}", *patched.command(command)]

    return Wrapping("own-library", wrap)


# The last byte of the library's code is the linker's padding: nothing runs it.
DAMAGES = """
from mlockwipe.contract.cases.l02_file_pages import library_text
from mlockwipe.linux import mm

def mlockall(flags, mlockall=mm.mlockall):
    mlockall(flags)
    path, _, end = library_text()
    with open("/proc/self/maps") as maps:
        offset = next(
            int(fields[2], 16) + end - int(fields[0].split("-")[0], 16)
            for fields in map(str.split, maps)
            if fields[0].endswith(f"-{end:x}")
        )
    with open(path, "r+b") as file:
        file.seek(offset - 1)
        file.write(b"!")

mm.mlockall = mlockall
"""


def test_a_library_that_stays_is_kept(tmp_path: Path) -> None:
    result = judge(CASE, with_a_library_of_its_own(tmp_path, ""))
    assert result.verdict == "kept", result.reason


def test_a_carrier_that_damages_the_library_is_convicted_in_every_view(tmp_path: Path) -> None:
    result = judge(CASE, with_a_library_of_its_own(tmp_path, DAMAGES))
    assert result.verdict == "damaged", result.reason
    assert result.reason is not None
    assert all(view in result.reason for view in ("as it is mapped", "in the page cache", "on disk"))
