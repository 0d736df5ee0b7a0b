"""When a row is sent, and which rows must wait for others: pure rules."""

import random
from collections.abc import Callable, Iterable
from typing import Final

from davfusion.cache.pending import (
    ABSENT,
    DELETIONS,
    DIRECTORY,
    EITHER,
    FILE,
    LARGE,
    LARGE_FROM,
    SMALL,
    Row,
)
from davfusion.stores import paths

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


def backoff(attempts: int, wished: float | None = None) -> float:
    """Seconds until the next try after so many that failed; never less than the service wishes."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempts, 16))
    return max(random.uniform(longest / 2, longest), wished or 0)  # noqa: S311 - no secret


class Choice:
    """Which due rows may be sent together with those that are being sent (`sending`).

    What must first be cleared or made goes before all that lies below, so that it is known then
    what is there; and nothing is cleared above what is being sent. What is held (`held`, by a move
    or copy under way) rests, with all above and below. `hides` tells whether the row of a
    directory, if there is one, hides what is below.
    """

    def __init__(
        self, sending: Iterable[str], held: Iterable[str], hides: Callable[[str], bool]
    ) -> None:
        self._sending = set(sending)
        self._held = list(held)
        self._hides = hides
        self._blocked: dict[str, bool] = {}

    def allows(self, row: Row) -> bool:
        """Whether the row may be sent now; if so, it counts as being sent from now on."""
        if (
            row.path in self._sending
            or self._is_blocked(row.path)
            or (self._held and paths.overlaps(row.path, self._held))
            or self._clears_what_is_sent(row)
        ):
            return False
        self._sending.add(row.path)
        return True

    def _is_blocked(self, path: str) -> bool:
        if path == paths.ROOT:
            return False
        up = paths.parent(path)
        if up not in self._blocked:
            self._blocked[up] = self._is_blocked(up) or up in self._sending or self._hides(up)
        return self._blocked[up]

    def _clears_what_is_sent(self, row: Row) -> bool:
        return row.clears in (DIRECTORY, EITHER) and any(
            paths.is_below(path, row.path) for path in self._sending
        )


def lane(row: Row) -> str:
    """DELETIONS, LARGE or SMALL; as LANES says in SQL."""
    if row.kind == ABSENT and row.clears == FILE:
        return DELETIONS
    return LARGE if row.bytes >= LARGE_FROM else SMALL
