"""A clock of which it is noticed that somebody has set it back."""

import math
from collections.abc import Callable
from typing import Final

TOLERANCE: Final = 1.0
"""Seconds by which two looks at a clock may disagree."""


class WatchedClock:
    """`clock`; `set_back` is called with the time at the first look, and when that has gone back.

    At the first, because nobody knows what it was set to in an earlier run.
    """

    def __init__(self, clock: Callable[[], float], set_back: Callable[[float], object]) -> None:
        self._clock = clock
        self._set_back = set_back
        self._latest = math.inf

    def __call__(self) -> float:
        now = self._clock()
        if now < self._latest - TOLERANCE:
            self._set_back(now)
        self._latest = now
        return now
