# SPDX-License-Identifier: MIT
"""Carriers that are not what they should be, made to be found out."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wrapping:
    """What makes any command line of the one that it is given; it has no limits."""

    name: str
    wrap: Callable[[Sequence[str]], list[str]]

    def command(self, argv: Sequence[str]) -> list[str]:
        return self.wrap(argv)

    def limit(self, case: str) -> str | None:
        return None


def acting(script: str) -> Wrapping:
    """A carrier that runs `script` in place of the program.

    The script knows `witness` and `channel`, and has `tell(**message)`, `show(*pages)` and `PATTERN`, a page of it.
    """

    def wrap(command: Sequence[str]) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", _ACTOR + script, *command[-2:]]

    return Wrapping("acting", wrap)


_ACTOR = """
import json, os, sys
witness, channel = map(int, sys.argv[1:])
PATTERN = ((0x5EC7E70F6D6C6F63).to_bytes(8, "little") + (0x6B77697065A5C396).to_bytes(8, "little")) * 256
ZEROS = bytes(4096)

def tell(**message):
    os.write(channel, json.dumps(message).encode())

def show(*pages):
    for page in pages:
        os.write(witness, page)
    tell(shown=len(pages))
"""


def patching(patch: str) -> Wrapping:
    """A carrier that runs the program itself, after `patch` has changed `Program` for it."""

    def wrap(command: Sequence[str]) -> list[str]:
        head, setup = command.index("-c"), "from mlockwipe.contract.run_case import main"
        source = command[head + 1]
        assert setup in source
        return [*command[: head + 1], source.replace(setup, f"exec({patch!r}); {setup}"), *command[head + 2 :]]

    return Wrapping("patching", wrap)


# Whatever is shown is zeroed in place, at once, and in the file that it is mapped from: nothing that the program
# releases afterwards can leak, and nothing that must stay is left. It knows of no lock, no release, no other process.
wiping_everything = patching(
    """
import contextlib, os
from mlockwipe.contract.program import PAGE, Program

def show(self, address, pages=16, show=Program.show):
    show(self, address, pages)
    memory = os.open("/proc/thread-self/mem", os.O_RDWR)  # the leader may be gone, and /proc/self with it
    with contextlib.suppress(OSError):  # a shared mapping that is read-only
        for page in range(address, address + pages * PAGE, PAGE):
            os.pwrite(memory, bytes(PAGE), page)
    os.close(memory)
    with open("/proc/thread-self/maps") as maps:
        for line in maps:
            fields = line.split()
            start, end = (int(part, 16) for part in fields[0].split("-"))
            if start <= address < end:
                break
    if fields[-1].endswith("/file"):
        file = os.open(fields[-1], os.O_RDWR)
        os.pwrite(file, bytes(pages * PAGE), address - start + int(fields[2], 16))
        os.close(file)

Program.show = show
"""
)
