# SPDX-License-Identifier: MIT
"""`mlockwipe kernel module` and the verbs below it."""

import argparse

from mlockwipe.verbs.parser import Verb, Verbs
from mlockwipe.verbs.stdout import Stdout

_EXAMPLE = "  mlockwipe kernel module install"


class Build(Verb):
    name = "kernel module build"
    summary = "build the module"
    description = (
        "Build the module for a kernel from its headers, which are fetched into the cache when they are not "
        "installed. Nothing is installed."
    )
    example = "  mlockwipe kernel module build --kernel 6.12.117+deb12-amd64 --output build"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--kernel", metavar="RELEASE", help="for this kernel, as uname -r says (default: the running)"
        )
        parser.add_argument("--headers", metavar="DIR", help="its headers (default: the installed, else Debian's)")
        parser.add_argument("--output", metavar="DIR", default=".", help="put the module there (default: here)")

    def call(self, arguments: argparse.Namespace) -> int:
        import os
        import shutil
        from pathlib import Path

        from mlockwipe.kernel.module import build, headers_for, series_of

        release = arguments.kernel or os.uname().release
        with Stdout():
            series_of(release)
            built = build(release, Path(arguments.headers) if arguments.headers else headers_for(release))
            place = Path(arguments.output)
            place.mkdir(parents=True, exist_ok=True)
            print(shutil.copy(built, place))
        return 0


class Install(Verb):
    name = "kernel module install"
    summary = "install the module through DKMS, for this kernel and those to come"
    description = (
        "Install the module through DKMS, which builds it anew for every kernel that is installed later. It is not "
        "loaded. Needs root, dkms and the headers of the running kernel."
    )
    example = _EXAMPLE

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.kernel.dkms import System, install

        with Stdout():
            print(install(System()))
        return 0


class Enable(Verb):
    name = "kernel module enable"
    summary = "load the module and switch it on, now and at every boot"
    description = (
        "Load the module and switch it on, now and, by files in /etc/modules-load.d and /etc/modprobe.d, at every "
        "boot. Needs root."
    )
    example = "  mlockwipe kernel module enable"

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.kernel.dkms import System, enable, status
        from mlockwipe.kernel.module_status_table import COMPACT

        with Stdout():
            print(enable(System()))
            if status(System()).compact_unevictable_allowed:
                print(COMPACT)
        return 0


class Disable(Verb):
    name = "kernel module disable"
    summary = "switch the module off, now and at every boot"
    description = "Switch the module off and remove the files that `enable` made. It stays loaded. Needs root."
    example = "  mlockwipe kernel module disable"

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.kernel.dkms import System, disable

        with Stdout():
            print(disable(System()))
        return 0


class Status(Verb):
    name = "kernel module status"
    summary = "show whether the module is installed, loaded and on, and what it has wiped"
    description = (
        "Show whether the module is installed, loaded and on, what it has wiped, and why a load would be refused."
    )
    example = "  mlockwipe kernel module status --json | jq .counters.wiped"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON with a schema version instead of a table")

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.kernel.dkms import System, status, to_json

        with Stdout():
            found = status(System())
            if arguments.json:
                import json

                print(json.dumps(to_json(found), indent=2))
            else:
                from mlockwipe.kernel.module_status_table import print_module_status

                print_module_status(found)
        return 0


class Uninstall(Verb):
    name = "kernel module uninstall"
    summary = "switch the module off, unload it and remove it"
    description = "Switch the module off, unload it, and remove it from DKMS and from this machine. Needs root."
    example = "  mlockwipe kernel module uninstall"

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.kernel.dkms import System, uninstall

        with Stdout():
            print(uninstall(System()))
        return 0


class Module(Verbs):
    name = "kernel module"
    summary = "the same as a module, for Debian's own kernels"
    description = (
        "The module init_mlocked_on_free wipes the locked memory of every program on the machine, on Debian's "
        "kernels of Linux 6.1 and 6.12. docs/module.md tells how, and its limits."
    )
    example = _EXAMPLE
    below = (Build(), Install(), Enable(), Disable(), Status(), Uninstall())
