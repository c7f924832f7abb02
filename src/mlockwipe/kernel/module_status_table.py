# SPDX-License-Identifier: MIT
"""`mlockwipe kernel module status` for people."""

from rich.console import Console
from rich.table import Table

from mlockwipe.kernel.dkms import ModuleStatus
from mlockwipe.kernel.module import SUPPORTED, headers_package

COMPACT = (
    "A page that compaction is just moving when it is released can be missed: "
    "sysctl vm.compact_unevictable_allowed=0 keeps compaction away from locked memory, "
    "though not from the copies of children."
)


def print_module_status(found: ModuleStatus) -> None:
    table = Table(show_header=False, show_edge=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _lines(found):
        table.add_row(name, value)
    Console().print(table)


def _lines(found: ModuleStatus) -> list[tuple[str, str]]:
    if not found.supported:
        return [("kernel", f"{found.kernel}, not one that the module knows: Debian's {' and '.join(SUPPORTED)} are")]
    lines = [("kernel", f"{found.kernel}, known to the module")]
    if not found.headers:
        lines.append(("headers", f"not installed: apt-get install {headers_package(found.kernel)}"))
    lines.append(("DKMS", found.dkms or "not installed: mlockwipe kernel module install"))
    if found.loaded:
        lines.append(("module", "loaded, on" if found.enabled else "loaded, off: mlockwipe kernel module enable"))
        lines.append(("copies by fork", "wiped too" if found.inherit else "not wiped: inherit is 0"))
    else:
        lines.append(("module", f"not loaded{f', and would be refused: {found.refused}' if found.refused else ''}"))
    lines.append(("at boot", "loaded, on" if found.at_boot else "not loaded"))
    if found.counters is not None:
        lines += [(name, str(value)) for name, value in found.counters.items()]
    if found.compact_unevictable_allowed:
        lines.append(("compaction", COMPACT))
    return lines
