# SPDX-License-Identifier: MIT
"""The inner half, as the one program of a machine: it operates key managers and has all memory searched.

Over the virtio port, as `mlockwipe_lab.vm.guest` describes it:

    host:  {"id": 1, "key_manager": NAME, "directory": ..., "carrier": NAME, "prefix": [...], "tries": 60}
    guest: {"id": 1, "look": true}                  stop me and look for the secret
    host:  {"id": 1, "found": {label: [physical address, ...]}}
    guest: {"id": 1, "result": {...}} or {"id": 1, "raised": "..."}
"""

import threading
from pathlib import Path

from mlockwipe_lab.key_managers.hold import hold
from mlockwipe_lab.key_managers.registry import key_manager
from mlockwipe_lab.vm.guest import Message, Port, _open_port, facts, prepare


def main() -> None:
    port = Port(_open_port())
    prepare()

    def work(message: Message) -> None:
        number, prefix = message["id"], message["prefix"]
        try:
            result = hold(
                key_manager(message["key_manager"]),
                Path(message["directory"]),
                lambda: port.ask(number, {"look": True})["found"],
                lambda argv: [*prefix, *argv],
                message["carrier"],
                message["tries"],
            )
        except Exception as error:  # the host must hear of it
            port.send({"id": number, "raised": f"{type(error).__name__}: {error}"})
        else:
            port.send({"id": number, "result": result.to_json()})

    port.send({"hello": facts()})
    port.serve(lambda message: threading.Thread(target=work, args=(message,), daemon=True).start())


if __name__ == "__main__":
    main()
