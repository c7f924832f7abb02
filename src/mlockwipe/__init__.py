# SPDX-License-Identifier: MIT
"""Zero a program's mlocked memory when it is released: munmap, exit, exec and SIGKILL included."""

__version__ = "0.1.0"
__all__ = ["LockLimitReached", "LockedBuffer", "__version__"]

TYPE_CHECKING = False  # as typing has it, which `mlockwipe run` does without
if TYPE_CHECKING:
    from mlockwipe.locked import LockedBuffer, LockLimitReached
else:

    def __getattr__(name: str) -> object:
        """The library is loaded by who asks for it: `mlockwipe run` starts without."""
        if name not in __all__:
            raise AttributeError(f"module 'mlockwipe' has no attribute '{name}'")
        from mlockwipe import locked

        return getattr(locked, name)
