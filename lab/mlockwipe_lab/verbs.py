# SPDX-License-Identifier: MIT
"""The verbs below `mlockwipe lab`, which finds them here (mlockwipe.verbs.lab)."""

import argparse

from mlockwipe.verbs.parser import Verb, positive, same_file
from mlockwipe.verbs.stdout import Stdout

_CARRIERS = ["none", "init_on_free", "supervisor"]


def _add_machines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel",
        action="append",
        metavar="NAME|PATH",
        help="boot debian-6.1, debian-6.12, patched-6.1, patched-6.12, unpatched-6.1, unpatched-6.12 or the bzImage "
        "at a path; may be given again (default: debian-6.1)",
    )
    parser.add_argument(
        "--carrier",
        action="append",
        choices=[*_CARRIERS, "boot-option", "module"],
        help="judge this carrier; may be given again (default: none, init_on_free and supervisor)",
    )


def _kernels(arguments: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(arguments.kernel or ["debian-6.1"]))


def _carriers(arguments: argparse.Namespace) -> list[str]:
    return list(dict.fromkeys(arguments.carrier or _CARRIERS))


class Verify(Verb):
    name = "lab verify"
    summary = "run the contract's cases in virtual machines"
    description = (
        "Boot kernels in QEMU, run every case of the contract under each carrier, stop the machine and search all of "
        "its memory from outside for what should be gone. Without a carrier it must be found. The exit status is 0 "
        "when every verdict is the expected one, else 1. `make lab-setup` installs what is needed."
    )
    example = "  mlockwipe lab verify --kernel debian-6.12 --carrier none --carrier supervisor --html matrix"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_machines(parser)
        parser.add_argument(
            "--case", metavar="GLOB", default="*", help="only cases whose name matches, such as 'W7-*'"
        )
        parser.add_argument(
            "--all", action="store_true", help="a line for every case, not for every row of the contract"
        )
        parser.add_argument("--json", metavar="FILE", help="write the verdicts and what was found where")
        parser.add_argument("--html", metavar="DIR", help="write the matrix as pages for a browser")

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.verify_here import matching

        if not matching(arguments.case):
            self.error(f"no case matches '{arguments.case}'")

        from mlockwipe_lab.matrix.lab_verify import lab_verify

        with Stdout():
            return lab_verify(
                _kernels(arguments),
                _carriers(arguments),
                arguments.case,
                every_case=arguments.all,
                json_file=arguments.json,
                html=arguments.html,
            )


class Keys(Verb):
    name = "lab keys"
    summary = "kill real key managers while they hold a secret, and look for it"
    description = (
        "Boot kernels in QEMU, run each key manager that is installed under each carrier until its secret stands in "
        "memory, search all of it, kill the key manager with SIGKILL, and search again. The exit status is 0 when no "
        "carrier left anything in pages that were locked, or inherited from a process that had locked them, and "
        "without a carrier something was left there; else 1. What the program itself has copied to other memory is "
        "shown beside it. `make lab-setup` installs what the machines need."
    )
    example = "  mlockwipe lab keys --manager 'gpg-*' --carrier none --carrier supervisor --json keys.json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_machines(parser)
        parser.add_argument(
            "--manager", metavar="GLOB", default="*", help="only key managers whose name matches, such as 'gpg-*'"
        )
        parser.add_argument("--json", metavar="FILE", help="write the verdicts and what was found where")

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe_lab.key_managers.registry import KEY_MANAGERS, matching

        managers = matching(arguments.manager)
        if not managers:
            known = ", ".join(manager.name for manager in KEY_MANAGERS)
            self.error(f"no key manager matches '{arguments.manager}': there are {known}")

        from mlockwipe_lab.key_managers.lab_keys import lab_keys

        with Stdout():
            return lab_keys(_kernels(arguments), _carriers(arguments), managers, json_file=arguments.json)


class Bench(Verb):
    name = "lab bench"
    summary = "count the instructions that the boot option or the module costs"
    description = (
        "Boot the kernel with the boot option init_mlocked_on_free off and on, and the same kernel without the "
        "patches, with init_on_free and with init_on_alloc; or Debian's kernel without the module, with it off and "
        "on, and with these. Count the instructions that munmap, exit, fork and exec take there, and real programs: "
        "hackbench, gcc, gpg, memcached and a web service, of this machine. They are counted by QEMU, so it does not "
        "matter what else this machine does. What is not in the cache is built first. Where a guest fails, the "
        "others of its carrier and series end with it, and the rest is counted and written. The exit status is 0 "
        "when all was counted, else 1."
    )
    example = "  mlockwipe lab bench --carrier module --series 6.12 --json costs.json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--carrier",
            action="append",
            choices=["boot-option", "module"],
            help="measure this carrier; may be given again (default: boot-option)",
        )
        parser.add_argument(
            "--series",
            action="append",
            choices=["6.1", "6.12"],
            help="of this Linux; may be given again (default: 6.12)",
        )
        parser.add_argument(
            "--time",
            nargs="?",
            type=_rounds,
            const=7,
            metavar="ROUNDS",
            help="measure wall and system time instead of counting instructions, on KVM where there is any, with so "
            "many boots of each configuration (2 or more, default: 7); leave the machine alone meanwhile",
        )
        parser.add_argument("--json", metavar="FILE", help="write every measurement there")
        parser.add_argument("--markdown", metavar="FILE", help="write the tables there, too")

    def call(self, arguments: argparse.Namespace) -> int:
        if same_file(arguments.json, arguments.markdown):
            self.error("--json and --markdown name the same file")

        from mlockwipe_lab.bench.guest.lab_bench import lab_bench

        with Stdout():
            return lab_bench(
                list(dict.fromkeys(arguments.carrier or ["boot-option"])),
                list(dict.fromkeys(arguments.series or ["6.12"])),
                rounds=arguments.time,
                json_file=arguments.json,
                markdown_file=arguments.markdown,
            )


def _rounds(text: str) -> int:
    rounds = positive(text, "number of rounds")
    if rounds == 1:
        raise argparse.ArgumentTypeError("one round does not tell what is noise: take at least 2, and 5 for 95 %")
    return rounds


BELOW = (Verify(), Keys(), Bench())
