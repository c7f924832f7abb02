# SPDX-License-Identifier: MIT
"""`mlockwipe oci`."""

import argparse

from mlockwipe.verbs.parser import Verb, Verbs
from mlockwipe.verbs.stdout import Stdout

_EXAMPLE = "  mlockwipe oci profile > mlockwipe.json\n  podman run --security-opt seccomp=mlockwipe.json IMAGE"


class Profile(Verb):
    name = "oci profile"
    summary = "write a seccomp profile with which a runtime hands containers over"
    description = (
        "Write to stdout a seccomp profile for Podman, containerd, Docker or runc: the rules of a base, and those by "
        "which the runtime hands each container over to `mlockwipe serve`. The image needs nothing of mlockwipe."
    )
    example = _EXAMPLE

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--base",
            metavar="FILE",
            help="the profile to begin with, or 'unconfined' (default: /etc/containers/seccomp.json or Podman's own)",
        )
        parser.add_argument(
            "--socket", metavar="PATH", default="/run/mlockwipe.sock", help="of the service (default: %(default)s)"
        )

        parser.add_argument(
            "--for",
            dest="reader",
            choices=["engine", "runtime"],
            default="engine",
            help="whether a container engine reads it (Podman, Docker: the default), or a runtime (runc, containerd)",
        )

    def call(self, arguments: argparse.Namespace) -> int:
        from mlockwipe.containers.profile import for_runtime, profile

        text = profile(arguments.base, arguments.socket)
        if arguments.reader == "runtime":
            text = for_runtime(text)
        with Stdout():
            print(text, end="")
        return 0


class Oci(Verbs):
    name = "oci"
    summary = "what container runtimes need: a seccomp profile"
    description = "Have a container runtime hand its containers over to `mlockwipe serve`."
    example = _EXAMPLE
    below = (Profile(),)


VERB = Oci()
