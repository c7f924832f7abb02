# SPDX-License-Identifier: MIT
"""`mlockwipe status` for people."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlockwipe.printable import printable
from mlockwipe.status import UNLISTED, Status
from mlockwipe.status.checks import NOTHING_TO_DO

_STYLES = {"good": "green", "warn": "yellow", "bad": "red", "info": "", "unknown": "magenta"}


def print_status(status: Status, console: Console | None = None) -> None:
    """Two tables on stdout: the checks, and the processes with locked memory. What others chose, such as a
    command line, is Text, so that no markup in it counts."""
    console = console or Console()
    checks = Table(title="What protects released secrets here", title_justify="left", show_edge=False)
    checks.add_column("what", no_wrap=True)
    checks.add_column("state", no_wrap=True)
    checks.add_column("found, and what to do", overflow="fold")
    for check in status.checks:
        state = Text(check.state, style=_STYLES[check.state])
        advice = () if check.advice == NOTHING_TO_DO else (Text(f"\n{printable(check.advice)}", style="dim"),)
        checks.add_row(check.name, state, Text.assemble(Text(printable(check.value)), *advice))
    console.print(checks)
    console.print()
    if not status.processes:
        if all(check.name != UNLISTED for check in status.checks):
            console.print("No process that this user may see holds locked memory.")
        return
    processes = Table(title="Processes with locked memory", title_justify="left", show_edge=False)
    processes.add_column("pid", justify="right", no_wrap=True)
    processes.add_column("user", no_wrap=True)
    processes.add_column("locked", justify="right", no_wrap=True)
    processes.add_column("wiped by", no_wrap=True)
    processes.add_column("command", overflow="fold")
    for process in status.processes:
        cover = Text(process.covered_by or "nothing", style="green" if process.covered_by else "yellow")
        kib = f"{process.locked_kib} KiB"
        processes.add_row(
            str(process.pid), Text(printable(process.user)), kib, cover, _shortened(printable(process.command))
        )
    console.print(processes)
    if any(process.covered_by is None for process in status.processes):
        console.print("\nStart those that nothing covers by 'mlockwipe run -- COMMAND', and their memory is wiped;")
        console.print("or cover them as they run, by 'mlockwipe attach PID'.")


def _shortened(command: str) -> Text:
    text = Text(command)
    text.truncate(160, overflow="ellipsis")
    return text
