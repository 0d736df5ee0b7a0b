"""Unfinished: what processes are at in a store, noted so that it is put right when they end.

Such as the parts of an upload, or what is out of the way in Dropbox while something replaces it.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from typing import Final

from davfusion.database import Database
from davfusion.platform import is_running
from davfusion.stores.store import Store, StoreAccessError, TransientStoreError

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS unfinished (
    path TEXT NOT NULL, token TEXT NOT NULL, process INTEGER NOT NULL
);
"""
NOBODY: Final = 0
_LATE, _SOON = 60.0, 0.5
"""Seconds in which a service may still carry out what a process has asked that has ended, and until
that is looked for first; then after twice as long each time."""

_log = logging.getLogger(__name__)


class Unfinished:
    """Those of one share, in all processes that share `database`; see NotedAsides."""

    def __init__(
        self,
        database: Database,
        doubt: Callable[[Collection[str]], None],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._doubt = doubt
        self._clock = clock
        self._asked: dict[str, tuple[float, float]] = {}
        """Token -> when that was first put right, and when it is to be again."""

    def begin(self, path: str, token: str) -> Callable[[bool], None]:
        """As Asides.unfinished; on a full disk, nothing is noted."""
        try:
            with self._database.transaction(silent=True) as db:
                db.execute("INSERT INTO unfinished VALUES (?, ?, ?)", (path, token, os.getpid()))
        except (sqlite3.Error, OSError) as error:
            _log.warning("a crash would leave a change of %s unfinished: %s", path, error)
            return lambda _is_left: None
        return partial(self._end, token)

    def abandon(self, service: Store) -> bool:
        """As NotedAsides.abandon_unfinished."""
        is_done, now = True, self._clock()
        for path, token in self._left():
            if token in self._asked and now < self._asked[token][1]:
                continue
            try:
                service.abandon(path, token, 0.0)
            except TransientStoreError:
                is_done = False
                continue
            except StoreAccessError as error:
                _log.warning("an unfinished change of %s stays behind: %s", path, error)
                self._end(token, False)
            else:
                self._put_off(token)
            self._doubt((path,))
        return is_done

    def paths(self) -> list[str]:
        """Where something has not been put right yet."""
        return [path for path, token in self._left() if token not in self._asked]

    def _left(self) -> Iterator[tuple[str, str]]:
        """Path and token of what processes have left that have ended."""
        for path, token, process in self._database.rows("SELECT * FROM unfinished"):
            if not (process and is_running(process)):
                yield path, token

    def _put_off(self, token: str) -> None:
        """Have it put right again, unless it has been for long enough."""
        now = self._clock()
        first, _ = self._asked.setdefault(token, (now, now))
        self._asked[token] = first, now + max(_SOON, now - first)
        self._end(token, now - first < _LATE)

    def _end(self, token: str, is_left: bool) -> None:
        if not is_left:
            self._asked.pop(token, None)
        with (
            suppress(sqlite3.Error, OSError),  # then it is abandoned once more, at a start
            self._database.transaction(silent=True) as db,
        ):
            if is_left:
                db.execute("UPDATE unfinished SET process = ? WHERE token = ?", (NOBODY, token))
            else:
                db.execute("DELETE FROM unfinished WHERE token = ?", (token,))
