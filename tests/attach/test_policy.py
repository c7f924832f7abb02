# SPDX-License-Identifier: MIT
"""The policy file of `mlockwipe attach --all`."""

from pathlib import Path

import pytest

from mlockwipe.attach.policy import HUGE, Policy, Process
from mlockwipe.attach.size import parse_size
from mlockwipe.errors import Refused

AGENT = Process("/usr/bin/gpg-agent", "root", "user@0.service", 64 << 10)
DATABASE = Process("/usr/lib/postgresql/15/bin/postgres", "nobody", "postgresql.service", HUGE + 4096)


def policy(directory: Path, text: str) -> Policy:
    file = directory / "policy.toml"
    file.write_text(text)
    return Policy.load(str(file))


def test_without_rules_all_but_the_huge_match(tmp_path: Path) -> None:
    for one in (Policy([], []), policy(tmp_path, "")):
        assert one.allows(AGENT)
        assert not one.allows(DATABASE)


@pytest.mark.parametrize(
    "key", ['executable = "/usr/bin/gpg-*"', 'user = "root"', 'user = "0"', 'unit = "user@*.service"']
)
@pytest.mark.parametrize("kind", ["attach", "exclude"])
def test_each_key_matches_and_all_of_a_table_must(tmp_path: Path, kind: str, key: str) -> None:
    matches = kind == "attach"
    assert policy(tmp_path, f"[[{kind}]]\n{key}\n").allows(AGENT) is matches
    other = 'executable = "/no"' if key.startswith("u") else 'user = "nobody"'
    assert policy(tmp_path, f"[[{kind}]]\n{key}\n{other}\n").allows(AGENT) is not matches


def test_a_number_may_be_a_user_without_a_name(tmp_path: Path) -> None:
    assert policy(tmp_path, '[[attach]]\nuser = "54321"\n').allows(Process("/bin/x", "54321", "", 4096))


def test_exclude_comes_before_attach_wherever_it_stands(tmp_path: Path) -> None:
    attach, exclude = '[[attach]]\nexecutable = "/usr/*"\n', '[[exclude]]\nexecutable = "*/gpg-agent"\n'
    for text in (attach + exclude, exclude + attach):
        one = policy(tmp_path, text)
        assert not one.allows(AGENT)
        assert one.allows(Process("/usr/bin/pinentry", "root", "", 4096))


def test_any_of_several_tables_will_do(tmp_path: Path) -> None:
    one = policy(tmp_path, '[[attach]]\nuser = "nobody"\n[[attach]]\nexecutable = "*/gpg-agent"\n')
    assert one.allows(AGENT)


@pytest.mark.parametrize(("largest", "allowed"), [('"1G"', True), ('"100M"', False), (str(HUGE + 4096), True)])
def test_max_locked_lets_the_huge_in(tmp_path: Path, largest: str, allowed: bool) -> None:
    assert policy(tmp_path, f'[[attach]]\nuser = "nobody"\nmax-locked = {largest}\n').allows(DATABASE) is allowed
    assert not policy(tmp_path, '[[attach]]\nuser = "nobody"\n').allows(DATABASE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[attach]", "is no TOML: "),
        ("[[attack]]\n", " has 'attack', and a policy has [[attach]] and [[exclude]] only"),
        ('[attach]\nuser = "root"\n', ": 'attach' must be a table in double brackets, [[attach]]"),
        ('[[attach]]\n[[attach]]\npath = "/x"\n', ", [[attach]] number 2 has 'path': it may have executable, "),
        ('[[exclude]]\nmax-locked = "1M"\n', ", [[exclude]] number 1 has 'max-locked': it may have executable, "),
        ("[[exclude]]\n", ", [[exclude]] number 1 is empty and would exclude everything: "),
        ("[[attach]]\nuser = 0\n", ", [[attach]] number 1: 'user' must be a string"),
        ('[[attach]]\nuser = "no such"\n', ", [[attach]] number 1: 'user' names no such, who does not exist"),
        ('[[attach]]\nmax-locked = "1T"\n', ", [[attach]] number 1: 'max-locked': '1T' is no size: "),
        ('[[exclude]]\nuser="a\\u0000b"\n', ", [[exclude]] number 1: 'user' names a"),
        (f"x={'9' * 5000}", " has something in it that is too long to be meant"),
        (f"x={'[' * 5000}", " has something in it that is too long to be meant"),
        ("[[attach]]\nmax-locked = true\n", ", [[attach]] number 1: 'max-locked' must be a size such as"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        policy(tmp_path, text)
    sentence = str(refused.value)
    assert sentence.startswith(f"the policy {tmp_path}/policy.toml")
    assert said in sentence
    assert "\n" not in sentence


def test_a_user_of_thousands_of_digits_is_nobody(tmp_path: Path) -> None:
    assert not policy(tmp_path, f'[[attach]]\nuser="{"9" * 5000}"\n').allows(Process("/x", "root", "", 4096))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        Policy.load(str(tmp_path / "no"))
    assert str(refused.value) == f"the policy {tmp_path}/no can't be read: No such file or directory"


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("16K", 16384), ("1m", 1 << 20), ("2G", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0K", "K", "-1", "1.5M", "1T", "1 K", "²"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)
