# SPDX-License-Identifier: MIT
"""The policy file: which of the processes that hold locked memory are to be attached to.

    [[exclude]]
    user = "postgres"

    [[attach]]
    executable = "/usr/bin/*"
    max-locked = "1G"

A process is attached to when an [[attach]] table matches it and no [[exclude]] table does. Without any [[attach]]
table all match that are not excluded. A table matches when all of its keys do.
"""

import pwd
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mlockwipe.attach.size import parse_size
from mlockwipe.errors import Refused

HUGE = 256 << 20  # bytes; who locks more, as databases and JVMs do, must be let in by a max-locked

_MATCHING = ("executable", "user", "unit")
_KEYS = {"exclude": _MATCHING, "attach": (*_MATCHING, "max-locked")}


@dataclass(frozen=True)
class Process:
    """What a policy knows of a process. `unit` is empty outside of systemd's units, `locked` is in bytes."""

    executable: str
    user: str
    unit: str
    locked: int


@dataclass(frozen=True)
class Rule:
    """One table of the file. `executable` and `unit` are patterns as of glob(7), where * matches a / too."""

    executable: str = "*"
    user: str | None = None
    unit: str = "*"
    max_locked: int | None = None

    def matches(self, process: Process) -> bool:
        return (
            fnmatchcase(process.executable, self.executable)
            and self.user in (None, process.user)
            and fnmatchcase(process.unit, self.unit)
            and (self.max_locked is None or process.locked <= self.max_locked)
        )


class Policy:
    """The rules of one file, or those that hold without a file."""

    def __init__(self, attach: list[Rule], exclude: list[Rule]) -> None:
        self._attach = attach or [Rule(max_locked=HUGE)]
        self._exclude = exclude

    @classmethod
    def load(cls, path: str) -> "Policy":
        """Refused, with the file and the key, when it can't be read or says what a policy can't say."""
        try:
            with open(path, "rb") as file:
                document = tomllib.load(file)
        except OSError as error:
            raise Refused(f"the policy {path} can't be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Refused(f"the policy {path} is no TOML: {error}") from None
        except (ValueError, RecursionError):  # a number of thousands of digits; brackets in brackets
            raise Refused(f"the policy {path} has something in it that is too long to be meant") from None
        for key in document:
            if key not in _KEYS:
                raise Refused(f"the policy {path} has '{key}', and a policy has [[attach]] and [[exclude]] only")
        return cls(*(_rules(path, kind, document.get(kind, [])) for kind in ("attach", "exclude")))

    def allows(self, process: Process) -> bool:
        return any(rule.matches(process) for rule in self._attach) and not any(
            rule.matches(process) for rule in self._exclude
        )


def _rules(path: str, kind: str, tables: Any) -> list[Rule]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Refused(f"the policy {path}: '{kind}' must be a table in double brackets, [[{kind}]]")
    return [
        _rule(f"the policy {path}, [[{kind}]] number {number}", kind, table) for number, table in enumerate(tables, 1)
    ]


def _rule(where: str, kind: str, table: dict[str, Any]) -> Rule:
    if not table and kind == "exclude":
        raise Refused(f"{where} is empty and would exclude everything: name an executable, a user or a unit")
    for key, value in table.items():
        if key not in _KEYS[kind]:
            raise Refused(f"{where} has '{key}': it may have {', '.join(_KEYS[kind])}")
        if key == "max-locked":
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise Refused(f"{where}: '{key}' must be a size such as \"64M\"")
        elif not isinstance(value, str):
            raise Refused(f"{where}: '{key}' must be a string")
    user = table.get("user")
    if user is not None:
        try:
            user = pwd.getpwuid(int(user)).pw_name if user.isdecimal() else pwd.getpwnam(user).pw_name
        except (KeyError, OverflowError, ValueError):  # ValueError: a NUL, thousands of digits
            if not user.isdecimal():  # a number need not have a name
                raise Refused(f"{where}: 'user' names {user}, who does not exist") from None
    try:
        largest = parse_size(str(table["max-locked"])) if "max-locked" in table else HUGE
    except ValueError as error:
        raise Refused(f"{where}: 'max-locked': {error}") from None
    return Rule(
        executable=table.get("executable", "*"),
        user=user,
        unit=table.get("unit", "*"),
        max_locked=largest if kind == "attach" else None,
    )
