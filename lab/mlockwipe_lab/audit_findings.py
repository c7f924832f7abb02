# SPDX-License-Identifier: MIT
"""Audit real programs on this machine, each as it ends by itself and as it is killed: prints the table of
docs/audit-findings.md. `python -m mlockwipe_lab.audit_findings [NAME ...]`; what is missing is left out by name.

Each scenario is a shell script that starts, uses and ends the program, in an empty directory, with PY for a Python.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

MLOCKWIPE = str(Path(sys.executable).with_name("mlockwipe"))
TIMEOUT = 120.0  # seconds

GPG = """
export GNUPGHOME=$PWD/g
mkdir -m 700 g
gpg -q --batch --pinentry-mode loopback --passphrase word --quick-gen-key a@example rsa4096 2>/dev/null
echo message > m
sign() { gpg -q --batch --pinentry-mode loopback --passphrase word --yes -o s -s m; }
agent() { gpg-connect-agent 'getinfo pid' /bye | sed -n 's/^D //p'; }
"""
SODIUM = """
cat > p.py <<'END'
import ctypes, os, sys
sodium = ctypes.CDLL("libsodium.so.23")
sodium.sodium_malloc.restype = ctypes.c_void_p
sodium.sodium_init()
key = ctypes.c_void_p(sodium.sodium_malloc(ctypes.c_size_t(32)))
sodium.randombytes_buf(key, ctypes.c_size_t(32))
if sys.argv[1] == "free":
    sodium.sodium_free(key)
elif sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
END
"""
OPENSSL = """
cat > p.py <<'END'
import ctypes, os, sys
crypto = ctypes.CDLL("libcrypto.so.3")
crypto.CRYPTO_secure_malloc.restype = ctypes.c_void_p
crypto.CRYPTO_secure_malloc_init(ctypes.c_size_t(65536), ctypes.c_size_t(32))
key = ctypes.c_void_p(crypto.CRYPTO_secure_malloc(ctypes.c_size_t(32), b"p", 1))
ctypes.memset(key, 107, 32)
if sys.argv[1] == "free":
    crypto.CRYPTO_secure_clear_free(key, ctypes.c_size_t(32), b"p", 1)
    crypto.CRYPTO_secure_malloc_done()
elif sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
END
"""
CRYPTSETUP = """
head -c 24 /dev/urandom | base64 > word; head -c 24 /dev/urandom | base64 > other; truncate -s 4M i
cryptsetup luksFormat --batch-mode --type luks2 --luks2-metadata-size 16k --luks2-keyslots-size 1m --pbkdf pbkdf2 \
    --pbkdf-force-iterations 1000 --key-file word i
add() { cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations $1 --key-file word i other; }
"""
KEEPASSXC = """
export HOME=$PWD QT_QPA_PLATFORM=offscreen
printf 'word\\nword\\n' | keepassxc-cli db-create -q -p -t 100 d
"""
CRYPTOGRAPHY = """
cat > p.py <<'END'
import os, sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
AESGCM(AESGCM.generate_key(256)).encrypt(os.urandom(12), b"message", None)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), 9)
END
"""
POSTGRESQL = """
AS() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
chmod 777 .
AS /usr/lib/postgresql/15/bin/initdb -D $PWD/d >/dev/null 2>&1
"""
MINISIGN = """
minisign -G -W -f -p k.pub -s k >/dev/null
mkfifo m
"""


@dataclass(frozen=True)
class Scenario:
    """`what` is done, after `setup`, which is not audited: `run` to a clean end, `kill` to a SIGKILL."""

    name: str
    program: str
    setup: str
    run: str
    kill: str


SCENARIOS = (
    Scenario(
        "gpg-agent: sign with RSA 4096",
        "gpg-agent",
        GPG + "gpgconf --kill all",
        "sign; sign; gpgconf --kill all",
        "sign; sign & sleep 0.15; kill -9 $(agent); wait",
    ),
    Scenario(
        "gpg: decrypt a stream",
        "gpg",
        GPG + "mkfifo f; gpg -q --batch --pinentry-mode loopback --passphrase word -o e -c m; gpgconf --kill all",
        "gpg -q --batch --pinentry-mode loopback --passphrase word -d e >/dev/null; gpgconf --kill all",
        "gpg -q --batch --pinentry-mode loopback --passphrase word -d f >/dev/null & exec 3>f; head -c 60 e >&3;"
        " sleep 0.5; kill -9 $!; wait; gpgconf --kill all",
    ),
    Scenario("libsodium: sodium_malloc", "$PY", SODIUM, "$PY p.py free", "$PY p.py kill"),
    Scenario("libsodium: exit without sodium_free", "$PY", SODIUM, "$PY p.py keep", "$PY p.py kill"),
    Scenario("OpenSSL: the secure heap", "$PY", OPENSSL, "$PY p.py free", "$PY p.py kill"),
    Scenario("OpenSSL: exit without freeing", "$PY", OPENSSL, "$PY p.py keep", "$PY p.py kill"),
    Scenario(
        "minisign: sign",
        "minisign",
        MINISIGN,
        "minisign -S -W -s k -x s -m m & echo message > m; wait",
        "minisign -S -W -s k -x s -m m & exec 3>m; sleep 0.5; kill -9 $!; wait",
    ),
    Scenario(
        "cryptsetup: luksAddKey",
        "cryptsetup",
        CRYPTSETUP,
        "add 50000",
        "add 9000000 & sleep 1; kill -9 $!; wait",
    ),
    Scenario(
        "keepassxc-cli: an open database",
        "keepassxc-cli",
        KEEPASSXC,
        "printf 'word\\nls\\nexit\\n' | keepassxc-cli open -q d",
        "mkfifo f; keepassxc-cli open -q d < f & exec 3>f; printf 'word\\nls\\n' >&3; sleep 3; kill -9 $!; wait",
    ),
    Scenario(
        "pinentry-curses: start and BYE",
        "pinentry-curses",
        "",
        "printf 'BYE\\n' | pinentry-curses",
        "mkfifo f; pinentry-curses < f & exec 3>f; sleep 0.5; kill -9 $!; wait",
    ),
    Scenario(
        "ssh-agent: add a key",
        "ssh-agent",
        "ssh-keygen -q -t ed25519 -N '' -f k",
        "eval $(ssh-agent) ; ssh-add -q k; ssh-agent -k",
        "eval $(ssh-agent) ; ssh-add -q k; kill -9 $SSH_AGENT_PID",
    ),
    Scenario("Python's cryptography: AESGCM", "$PY", CRYPTOGRAPHY, "$PY p.py end", "$PY p.py kill"),
    Scenario(
        "PostgreSQL: a query",
        "/usr/lib/postgresql/15/bin/postgres",
        POSTGRESQL,
        "echo 'select 1' | AS /usr/lib/postgresql/15/bin/postgres --single -D $PWD/d postgres",
        "mkfifo f; AS /usr/lib/postgresql/15/bin/postgres --single -D $PWD/d postgres < f & exec 3>f; sleep 2;"
        " kill -9 $!; wait",
    ),
    Scenario(
        "redis-server",
        "redis-server",
        "",
        "redis-server --port 0 --save '' & sleep 1; kill $!; wait",
        "redis-server --port 0 --save '' & sleep 1; kill -9 $!; wait",
    ),
)


def main(patterns: list[str]) -> int:
    print("| program | as it ends by itself | killed |\n|---|---|---|")
    for scenario in SCENARIOS:
        if patterns and not any(pattern in scenario.name for pattern in patterns):
            continue
        program = sys.executable if scenario.program == "$PY" else scenario.program
        if shutil.which(program) is None:
            print(f"{scenario.name}: {program} is not installed", file=sys.stderr)
            continue
        cells = [_audited(scenario.setup, script) for script in (scenario.run, scenario.kill)]
        print(f"| {scenario.name} | {cells[0]} | {cells[1]} |", flush=True)
    return 0


def _audited(setup: str, script: str) -> str:
    """What was found, as a cell."""
    functions = "\n".join(line for line in setup.splitlines() if "() {" in line or line.startswith("export"))
    with tempfile.TemporaryDirectory(prefix="mlockwipe-") as place:
        environment = {**os.environ, "PY": sys.executable, "HOME": place}
        subprocess.run(["sh", "-c", setup], cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
        command = [MLOCKWIPE, "audit", "--json", "findings.json", "--", "sh", "-c", f"{functions}\n{script}"]
        done = subprocess.run(
            command,
            cwd=place,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT,
        )
        print(done.stderr, file=sys.stderr)
        told = json.loads(Path(place, "findings.json").read_text())
    if not told["locking"] and not told["findings"]:
        return "locks nothing"
    cell = [
        f"{finding['kind']} ({os.path.basename(finding['program'])}, {finding['cause']}): "
        f"{finding['bytes']} bytes of {finding['length']}"
        for finding in told["findings"]
        if finding["kind"] != "never-released"
    ]
    return "<br>".join(cell) or "clear"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
