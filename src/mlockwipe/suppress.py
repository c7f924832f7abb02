# SPDX-License-Identifier: MIT
"""contextlib.suppress, for what every start of `mlockwipe run` loads: contextlib takes 4 ms, with all it imports."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class suppress:
    """The body ends at an exception of these kinds, and execution goes on after it."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> bool:
        return kind is not None and issubclass(kind, self._kinds)
