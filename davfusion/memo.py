"""Answers that may be given again, kept in the memory of one process."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from davfusion.stamp import Stamp

LIMIT: Final = 16 << 20
"""Bytes of what one memo keeps."""

_COST: Final = 1024
"""Bytes that an answer takes beside its body."""

REPEATABLE: Final = "davfusion.repeatable"
"""Of a WSGI environ: the Repeatable of an answer that the same request may be given again."""


@dataclass(frozen=True)
class Validity:
    """How long an answer may be given again without a look at what it was made of.

    As long as the stamp in `folder` is that of before the answer was made, and for `seconds` of
    `clock` since then at most: for what changes without renewing the stamp.
    """

    folder: Path
    seconds: float
    clock: Callable[[], float]
    age: float = 60.0
    """Seconds after which another program's change is seen at the latest."""


class Moment(NamedTuple):
    """Before an answer was made."""

    stamp: bytes
    at: float


class Memo:
    """Answers by what was asked, as long as `validity` says; may be used by several threads.

    All that is kept is of one stamp. What is too much is no reason to choose: an answer holds for
    seconds, so all are dropped. Raises OSError where the folder cannot be used.
    """

    def __init__(self, validity: Validity, limit: int = LIMIT) -> None:
        self._stamp = Stamp(validity.folder)
        self._stamp.value()
        self._seconds = validity.seconds
        self._clock = validity.clock
        self._limit = limit
        self._stamped = b""
        self._size = 0
        self._answers: dict[Hashable, tuple[Moment, Any]] = {}

    def begin(self) -> Moment:
        """To be called before an answer is made."""
        return Moment(self._stamp.value(), self._clock())

    def recall(self, question: Hashable) -> tuple[Moment, Any] | None:
        """The answer that was kept, with its moment; None where it holds no longer."""
        found = self._answers.get(question)
        if found is None or found[0].stamp != self._stamp.value():
            return None
        return found if 0 <= self._clock() - found[0].at < self._seconds else None

    def keep(self, question: Hashable, moment: Moment, answer: object, size: int) -> None:
        """Keep an answer of `size` bytes that was begun at `moment`."""
        size += _COST
        if size > self._limit // 2:
            return
        if self._stamped != moment.stamp or self._size + size > self._limit:
            self._stamped, self._size, self._answers = moment.stamp, 0, {}
        self._size += size
        self._answers[question] = (moment, answer)

    def close(self) -> None:
        """Drop all."""
        self._answers = {}
        self._stamp.close()


class Memos:
    """Those of several shares, by one kind of question."""

    def __init__(self) -> None:
        self._memos: list[Memo] = []

    def recall(self, question: Hashable) -> tuple[Moment, Any] | None:
        """As Memo.recall, of any of them."""
        for memo in self._memos:
            if found := memo.recall(question):
                return found
        return None

    def add(self, memo: Memo) -> None:
        """Have it asked, too."""
        if memo not in self._memos:
            self._memos.append(memo)


class Repeatable(NamedTuple):
    """Who keeps an answer, and the moment to keep it under."""

    memo: Memo
    moment: Moment
