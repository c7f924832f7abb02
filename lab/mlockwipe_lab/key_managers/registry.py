# SPDX-License-Identifier: MIT
"""All key managers, by name."""

from fnmatch import fnmatchcase

from mlockwipe.errors import Refused
from mlockwipe_lab.key_managers import KeyManager
from mlockwipe_lab.key_managers.chrony import CHRONY
from mlockwipe_lab.key_managers.cryptsetup import CRYPTSETUP
from mlockwipe_lab.key_managers.gnome_keyring import GNOME_KEYRING
from mlockwipe_lab.key_managers.gpg import GPG
from mlockwipe_lab.key_managers.keepassxc import KEEPASSXC
from mlockwipe_lab.key_managers.minisign import MINISIGN
from mlockwipe_lab.key_managers.openvpn import OPENVPN
from mlockwipe_lab.key_managers.pinentry import PINENTRY
from mlockwipe_lab.key_managers.services import SERVICES
from mlockwipe_lab.key_managers.softhsm import SOFTHSM
from mlockwipe_lab.key_managers.ssh_agent import SSH_AGENT

KEY_MANAGERS: tuple[KeyManager, ...] = (
    *GPG,
    PINENTRY,
    GNOME_KEYRING,
    MINISIGN,
    *SERVICES,
    CRYPTSETUP,
    KEEPASSXC,
    CHRONY,
    OPENVPN,
    SSH_AGENT,
    SOFTHSM,
)


def key_manager(name: str) -> KeyManager:
    """Raises Refused."""
    for manager in KEY_MANAGERS:
        if manager.name == name:
            return manager
    raise Refused(f"there is no key manager {name}: name one of {', '.join(known.name for known in KEY_MANAGERS)}")


def matching(pattern: str) -> list[KeyManager]:
    """Those whose name matches a shell pattern."""
    return [manager for manager in KEY_MANAGERS if fnmatchcase(manager.name, pattern)]
