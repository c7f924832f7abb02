# SPDX-License-Identifier: MIT
"""Kernels by their path and by the name of Debian's, and what is said when there is none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mlockwipe.errors import Refused
from mlockwipe.kernel import packages
from mlockwipe_lab.vm.kernels import kernel, newest_package
from tests.support.running import MLOCKWIPE, marked

PACKAGE = "linux-image-6.1.0-99-amd64-unsigned"


def image(version: bytes) -> bytes:
    """The head of a bzImage."""
    head = bytearray(0x1000)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x200).to_bytes(2, "little")
    head[0x400 : 0x400 + len(version)] = version
    return bytes(head)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of programs, in front of all others; and an empty cache."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setattr(packages, "_PATH", f"{place}:{packages._PATH}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script(place / "apt-cache", f"echo {PACKAGE}; echo linux-image-6.1.0-100-cloud-amd64-unsigned")
    return place


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_kernel_is_known_by_what_it_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    modules = tmp_path / "lib" / "modules" / "6.6.6-home+"
    modules.mkdir(parents=True)
    path = tmp_path / "boot" / "bzImage"
    path.write_bytes(image(b"6.6.6-home+ (me@here) #1 SMP\0"))
    found = kernel(str(path))
    assert (found.release, found.image, found.modules) == ("6.6.6-home+", path, modules)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a kernel"),
        (b"#!/bin/sh\n" * 1000, "is not a kernel"),
        (image(b""), "does not say which Linux it is"),
        (image(b"6.6.6\0")[:0x300], "does not say which Linux it is"),
        (image(b"\xff\xfe\0"), "does not say which Linux it is"),
    ],
)
def test_a_file_that_is_no_kernel_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(content)
    with pytest.raises(Refused, match=why):
        kernel(str(path))


def test_a_directory_or_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="can't be read: Is a directory"):
        kernel(str(tmp_path))
    with pytest.raises(Refused, match=r"name one of debian-6\.1, .*, unpatched-6\.12, or the path of a bzImage"):
        kernel("debian-7")


def test_a_package_is_unpacked_once(tools: Path) -> None:
    tree = (
        f"root/boot root/lib/modules/6.1.0-99-amd64; printf x > root/boot/vmlinuz-6.1.0-99-amd64; touch {tools}/ran"
    )
    script(tools / "apt-get", "touch package.deb")
    script(tools / "dpkg-deb", f"test ! -e {tools}/ran && mkdir -p {tree}")
    script(tools / "depmod", "true")
    for _ in range(2):
        with pytest.raises(Refused, match=r"vmlinuz-6\.1\.0-99-amd64 is not a kernel"):
            kernel("debian-6.1")
    assert [path.name for path in packages.cache().iterdir()] == [PACKAGE]


def test_a_series_that_apt_does_not_know_is_refused(tools: Path) -> None:
    script(tools / "apt-cache", "true")
    with pytest.raises(Refused, match=r"apt knows no package with Linux 6\.1: .*`apt-get update`"):
        kernel("debian-6.1")


@pytest.mark.parametrize(
    ("tool", "what"),
    [
        ("apt-get", f"{PACKAGE} can't be downloaded"),
        ("dpkg-deb", r"package\.deb can't be unpacked"),
        ("depmod", "its modules can't be indexed"),
    ],
)
def test_why_a_package_does_not_arrive_is_said_and_nothing_is_left(tools: Path, tool: str, what: str) -> None:
    script(tools / "apt-get", "touch package.deb")
    script(tools / "dpkg-deb", "mkdir -p root/boot root/lib/modules/6.1.0-99-amd64")
    script(tools / "depmod", "true")
    script(tools / tool, "touch half; echo W: slow >&2; echo E: the disk is full >&2; echo >&2; exit 100")
    with pytest.raises(Refused, match=f"{what}: E: the disk is full"):
        kernel("debian-6.1")
    assert not list(packages.cache().iterdir())


def test_without_room_in_the_cache_nothing_is_fetched(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tools / "apt-get", f"touch {tools}/ran")
    script(tools / "depmod", "true")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10 << 30, 10 << 30, 1 << 20))
    with pytest.raises(Refused, match=r"has no room for a kernel: make 640 MiB free there, .*XDG_CACHE_HOME"):
        kernel("debian-6.1")
    assert not (tools / "ran").exists()


def test_a_cache_that_can_not_be_made_is_said(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(Refused, match=r"can't be made .*XDG_CACHE_HOME"):
        kernel("debian-6.1")


@pytest.mark.needs_program("apt-get", "apt")
@pytest.mark.needs_program("qemu-system-x86_64", "qemu-system-x86")
def test_without_a_network_the_command_says_so(tmp_path: Path) -> None:
    if not newest_package("6.1"):
        pytest.skip("apt knows no package with Linux 6.1")
    with marked() as processes:
        done = subprocess.run(
            [MLOCKWIPE, "lab", "verify", "--case", "W1-whole"],
            env={
                **processes.environment,
                "XDG_CACHE_HOME": str(tmp_path),
                "http_proxy": "http://127.0.0.1:9",
                "https_proxy": "http://127.0.0.1:9",
            },
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert done.returncode == 125, done.stderr
    assert done.stderr.startswith("mlockwipe: linux-image-6.1.")
    assert "can't be downloaded: E: " in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "mlockwipe" / "kernels").iterdir())
