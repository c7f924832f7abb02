# SPDX-License-Identifier: MIT
"""The one exception that is meant for a user's eyes."""


class Refused(Exception):
    """mlockwipe itself can't do what was asked; the message is one sentence that names the remedy.

    The command line prints it after `mlockwipe: ` and ends with status 125. It is raised before anything was
    started, so nothing has to be undone.
    """
