# SPDX-License-Identifier: MIT
"""A buffer for secrets in memory that is locked, guarded, and cleared when it is released."""

from mlockwipe.locked.buffer import LockedBuffer
from mlockwipe.locked.pages import LockLimitReached

__all__ = ["LockLimitReached", "LockedBuffer"]
