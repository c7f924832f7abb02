# SPDX-License-Identifier: MIT
"""`mlockwipe kernel module`: build, install, enable, disable, status, uninstall."""

import json
import os
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mlockwipe.errors import Refused
from mlockwipe.kernel import dkms
from mlockwipe.kernel.dkms import ModuleStatus, System
from mlockwipe.kernel.module import SUPPORTED, build, fetched_headers, headers_package, installed_headers, series_of

_COMPACT = (
    "A page that compaction is just moving when it is released can be missed: "
    "sysctl vm.compact_unevictable_allowed=0 keeps compaction away from locked memory, "
    "though not from the copies of children."
)


def module_build(release: str | None, headers: str | None, output: str) -> int:
    """Build, and put the .ko into the directory `output`. Raises Refused."""
    wanted = release or os.uname().release
    series_of(wanted)
    place = Path(output)
    built = build(wanted, Path(headers) if headers else _headers(wanted))
    place.mkdir(parents=True, exist_ok=True)
    print(shutil.copy(built, place))
    return 0


def _headers(release: str) -> Path:
    """Those that are installed, else Debian's in the cache."""
    try:
        return installed_headers(release)
    except Refused:
        pass
    try:
        return fetched_headers(release)
    except Refused as error:
        package = headers_package(release)
        raise Refused(f"{error}: apt-get install {package}, or name the headers by --headers") from error


def module_change(what: str) -> int:
    """`what`: install, enable, disable or uninstall. Raises Refused."""
    system = System()
    print(getattr(dkms, what)(system))
    if what == "enable" and dkms.status(system).compact_unevictable_allowed:
        print(_COMPACT)
    return 0


def module_status(*, as_json: bool) -> int:
    """Print what is so: 0."""
    found = dkms.status(System())
    if as_json:
        print(json.dumps(dkms.to_json(found), indent=2))
    else:
        Console().print(_table(found))
    return 0


def _table(found: ModuleStatus) -> Table:
    table = Table(show_header=False, show_edge=False, box=None, padding=(0, 2, 0, 0))
    for name, value in _lines(found):
        table.add_row(name, value)
    return table


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
        lines.append(("compaction", _COMPACT))
    return lines
