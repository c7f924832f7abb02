# SPDX-License-Identifier: MIT
"""What of `mlockwipe lab verify` runs in a guest, called by name through `mlockwipe_lab.vm.guest`."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from mlockwipe.carriers.carrier import Carrier
from mlockwipe.contract.cases import all_cases
from mlockwipe.contract.judge import judge_by
from mlockwipe.contract.result import record
from mlockwipe.linux.physical import Frames
from mlockwipe_lab.matrix.nursery import Nursery
from mlockwipe_lab.matrix.ram_search import RamSearch

CASE_TIMEOUT = 180.0  # seconds: an emulated CPU is slow
MANY = 64  # places of a leak that are told one by one

_frames = cache(Frames)
_lock = threading.Lock()
_nurseries: dict[tuple[str, ...], Nursery] = {}


def judge_case(name: str, carrier: Mapping[str, Any], ask: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The case's result and what was found. It asks the host for a search, {"search": [second, ...], "patient":
    false}: to be stopped, now or soon, and looked through for these words; and is answered {second: {page: pairs}}.

    `carrier`: its "name", "prefix" and "limits", and whether it is "late".
    """
    case = next(case for case in all_cases() if case.name == name)
    under = Carrier(carrier["name"], tuple(carrier["prefix"]), limits=carrier["limits"], late=carrier["late"])
    eyes = RamSearch(case, under.late, ask, _frames())
    began = time.monotonic()
    result = judge_by(eyes, case, under, timeout=CASE_TIMEOUT, start=_nursery(under.prefix).bear)
    return {
        "result": record(result),
        "alive": _places(eyes.alive),
        "gone": _places(eyes.gone),
        "lost": eyes.lost,
        "seconds": round(time.monotonic() - began, 2),
    }


def _nursery(prefix: tuple[str, ...]) -> Nursery:
    with _lock:
        if prefix not in _nurseries:
            _nurseries[prefix] = Nursery(prefix)
        return _nurseries[prefix]


def _places(frames: Mapping[int, tuple[int, str]]) -> dict[str, Any]:
    return {
        "pages": len(frames),
        "places": [
            {"frame": frame, "pairs": pairs, "kind": kind} for frame, (pairs, kind) in sorted(frames.items())[:MANY]
        ],
    }
