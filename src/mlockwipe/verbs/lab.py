# SPDX-License-Identifier: MIT
"""`mlockwipe lab`: the verbs below it are those of the package mlockwipe-lab, where that is installed."""

import argparse

from mlockwipe.errors import Refused
from mlockwipe.verbs.parser import Verb, Verbs


def _installed() -> tuple[Verb, ...]:
    try:
        from mlockwipe_lab.verbs import BELOW
    except ModuleNotFoundError as error:
        if error.name != "mlockwipe_lab":  # it is there, and something is wrong with it
            raise
        return ()
    return BELOW


class Lab(Verbs):
    name = "lab"
    summary = "virtual machines: the cases and real key managers, all memory searched; what the kernel's ways cost"
    description = (
        "Boot kernels in QEMU, stop the machine and search all of its memory from outside for what should be gone; "
        "or count the instructions of the boot option and the module. It is a package of its own, mlockwipe-lab: "
        "`make lab-setup` installs it with all that the machines need."
    )
    example = "  mlockwipe lab verify --kernel debian-6.12 --carrier none --carrier supervisor --html matrix"
    below = _installed()

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        if self.below:
            super().arguments(parser)
        else:
            parser.add_argument("words", nargs=argparse.REMAINDER, metavar="verify|keys|bench")

    def call(self, arguments: argparse.Namespace) -> int:
        if not self.below:
            raise Refused(
                "the lab is a package of its own, mlockwipe-lab, which is not installed: run `make lab-setup` in "
                "mlockwipe's sources, or pip install ./lab there"
            )
        return super().call(arguments)


VERB = Lab()
