# SPDX-License-Identifier: MIT
"""`python -m mlockwipe_lab.key_managers NAME [-- PREFIX ...]`: one key manager on this machine, as root.

Without a virtual machine only the memory of living processes can be searched: this shows that and where the
secret is held, and can't show what is left of it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlockwipe.errors import Refused
from mlockwipe_lab.key_managers import native
from mlockwipe_lab.key_managers.hold import FOUND, TRIES, hold
from mlockwipe_lab.key_managers.material import missing
from mlockwipe_lab.key_managers.registry import KEY_MANAGERS, key_manager


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m mlockwipe_lab.key_managers", description=__doc__)
    names = ", ".join(manager.name for manager in KEY_MANAGERS)
    parser.add_argument("name", help=f"one of {names}")
    parser.add_argument("--tries", type=int, default=TRIES, help=f"moments to look at ({TRIES})")
    parser.usage = "%(prog)s [-h] [--tries TRIES] NAME [-- PREFIX ...]"
    # By hand: argparse loses a `--` that belongs to the prefix.
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options, prefix = parser.parse_args(arguments[:at]), arguments[at + 1 :]
    try:
        manager = key_manager(options.name)
        if absent := missing(manager):
            raise Refused("; ".join(absent))
        with tempfile.TemporaryDirectory(prefix="km-", dir="/tmp") as place:
            needles = manager.prepare(Path(place))
            result = hold(
                manager,
                Path(place),
                lambda: native.look(needles),
                lambda argv: [*prefix, *argv],
                " ".join(prefix) or "bare",
                options.tries,
            )
    except Refused as error:
        print(f"mlockwipe: {error}", file=sys.stderr)
        return 125
    print(json.dumps(result.to_json(), indent=1))
    return 0 if result.moment == FOUND else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
