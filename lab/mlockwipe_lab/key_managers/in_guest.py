# SPDX-License-Identifier: MIT
"""What of `mlockwipe lab keys` runs in a guest, called by name through `mlockwipe_lab.vm.guest`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlockwipe_lab.key_managers.hold import hold
from mlockwipe_lab.key_managers.registry import key_manager


def hold_and_kill(
    name: str, directory: str, carrier: str, prefix: Sequence[str], tries: int, ask: Callable[[object], Any]
) -> dict[str, object]:
    """Its result. It asks the host to stop it and look for the secret, again and again, and is answered {label:
    [physical address, ...]}.
    """
    result = hold(
        key_manager(name),
        Path(directory),
        lambda: ask("look"),
        lambda argv: [*prefix, *argv],
        carrier,
        tries,
    )
    return result.to_json()
