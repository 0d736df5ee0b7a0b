"""SyncLog: what has changed below a folder since a sync client asked last (RFC 6578).

It keeps what the members of synced folders were when they were looked at last, and numbers what
differs from that at the next look: so no change is missed, whoever made it and on whatever store.
"""

import hashlib
import sqlite3
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from davfusion.database import Database, below
from davfusion.stores import paths
from davfusion.stores.errors import TransientStoreError

# `version` NULL: a file that is gone; '': such a folder. Tokens of another file have another id.
SCHEMA = """
CREATE TABLE IF NOT EXISTS member (
    directory TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, version TEXT,
    PRIMARY KEY (directory, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS member_number ON member (number);
CREATE INDEX IF NOT EXISTS gone_member ON member (number) WHERE ifnull(version, '') = '';
CREATE TABLE IF NOT EXISTS log (
    only_row INTEGER PRIMARY KEY, id TEXT NOT NULL, latest INTEGER NOT NULL,
    forgotten INTEGER NOT NULL
);
INSERT OR IGNORE INTO log VALUES (1, lower(hex(randomblob(8))), 0, 0);
"""
GONE_KEPT: Final = 100_000
"""How many members that are gone are remembered; tokens from before what is forgotten end."""
PREFIX: Final = "data:,davfusion-sync-"
"""How the tokens begin: they are URIs (RFC 6578 section 4)."""
FOLDER: Final = "d"
"""How the version of a folder begins."""
FILE: Final = "f"
_GONE_FOLDER: Final = ""
_GONE: Final = "ifnull(version, '') = ''"
_PAGE: Final = 1000
_PUT: Final = "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)"


class InvalidTokenError(Exception):
    """The token is none of the folder's, or too old: the client has to begin anew."""


class Scope(NamedTuple):
    """The members of a folder, or with `deep` all that is below it."""

    folder: str
    deep: bool

    @property
    def where(self) -> str:
        """The condition on a member, for the values `bounds`."""
        return "(directory = ? OR directory >= ? AND directory < ?)" if self.deep else "directory=?"

    @property
    def bounds(self) -> tuple[str, ...]:
        return (self.folder, *below(self.folder)) if self.deep else (self.folder,)


class Change(NamedTuple):
    """A member that is new, another version or gone since.

    `was_folder` counts for what is gone.
    """

    number: int
    directory: str
    name: str
    is_gone: bool
    was_folder: bool


class SyncLog:
    """Numbered changes, in a file that all workers share (`path=None`: in memory).

    Raises sqlite3.OperationalError when another worker's look() lasts too long.
    """

    def __init__(self, path: Path | None) -> None:
        self._database = Database(path, SCHEMA, durable=True)
        # Of its own, so that an answer being sent does not wait for the next look.
        self._reading = Database(path, SCHEMA, durable=True) if path else self._database

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        self._database.close()
        self._reading.close()

    @contextmanager
    def look(self) -> Iterator["Look"]:
        """All or nothing, one at a time: an older look must not undo what a later one has seen."""
        with self._database.transaction(silent=True) as db:
            found = Look(db)
            yield found
            found.end()

    def token(self, folder: str) -> str:
        """The token of all that was seen below the folder so far."""
        scope = Scope(folder, deep=True)
        sql = f"SELECT number FROM member WHERE {scope.where} ORDER BY number DESC LIMIT 1"  # noqa: S608
        last = self._reading.rows(sql, scope.bounds)
        log_id, _, forgotten = self._log()
        return _token(log_id, folder, max(last[0][0] if last else 0, forgotten))

    def number(self, token: str, folder: str) -> int:
        """The number that a token of the folder stands for; InvalidTokenError."""
        log_id, latest, forgotten = self._log()
        number = token.removeprefix(_token(log_id, folder, ""))
        is_number = number.isascii() and number.isdigit() and len(number) < 19
        if number == token or not is_number or not forgotten <= int(number) <= latest:
            raise InvalidTokenError(token)
        return int(number)

    def until(self, scope: Scope, since: int, limit: int) -> str | None:
        """The token after the first `limit` changes since; None where there are no more of them."""
        sql = (
            f"SELECT number FROM member WHERE number > ? AND {scope.where}"  # noqa: S608
            f" AND {_shown(since)} ORDER BY number LIMIT 2 OFFSET ?"
        )
        found = self._reading.rows(sql, (since, *scope.bounds, limit - 1))
        return _token(self._log()[0], scope.folder, found[0][0]) if len(found) == 2 else None

    def changes(self, scope: Scope, since: int, until: int) -> Iterator[Change]:
        """The changes of numbers since < number <= until, folders before what is in them.

        What changes again meanwhile is left to the next look. From the beginning (`since` 0)
        there is nothing that could be gone.
        """
        sql = (
            "SELECT number, directory, name, version FROM member"  # noqa: S608
            f" WHERE number > ? AND number <= ? AND {scope.where} AND {_shown(since)}"
            f" ORDER BY number LIMIT {_PAGE}"
        )
        last = since
        while page := self._reading.rows(sql, (last, until, *scope.bounds)):
            for number, directory, name, version in page:
                yield Change(number, directory, name, not version, version == _GONE_FOLDER)
            last = page[-1][0]

    def _log(self) -> tuple[str, int, int]:
        [(log_id, latest, forgotten)] = self._reading.rows("SELECT id, latest, forgotten FROM log")
        return log_id, latest, forgotten


class Look:
    """What a look at folders finds, within its transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        [self._latest] = db.execute("SELECT latest FROM log").fetchone()

    def through(
        self, scope: Scope, walk: Iterable[tuple[str, str]], unseen: Container[str] = ()
    ) -> None:
        """(path, version) of all that is in the scope now, in the order of a walk_metadata.

        Of the directories `unseen`, by the time the walk has left them, nothing new is known.
        """
        under_way = [(scope.folder, self._known(scope.folder))]
        for path, version in walk:
            directory = paths.parent(path)
            while under_way and under_way[-1][0] != directory:
                self._leave(*under_way.pop(), unseen)
            if not under_way:
                raise TransientStoreError(f"{directory} changed while it was looked at")
            name = paths.name(path)
            before = under_way[-1][1].pop(name, None)
            if before != version:
                self._put(directory, name, version)
                if is_folder(before) and not is_folder(version):
                    self._all_gone(path)
            if scope.deep and is_folder(version):
                under_way.append((path, self._known(path)))
        for left in reversed(under_way):
            self._leave(*left, unseen)

    def end(self) -> None:
        """Note the last number, and forget the oldest of what is gone."""
        self._db.execute("UPDATE log SET latest = ?", (self._latest,))
        sql = f"SELECT number FROM member WHERE {_GONE} ORDER BY number DESC LIMIT 1 OFFSET ?"  # noqa: S608
        if (oldest := self._db.execute(sql, (GONE_KEPT,)).fetchone()) is None:
            return
        self._db.execute(f"DELETE FROM member WHERE {_GONE} AND number <= ?", oldest)  # noqa: S608
        self._db.execute("UPDATE log SET forgotten = ?", oldest)

    def _known(self, directory: str) -> dict[str, str | None]:
        sql = "SELECT name, version FROM member WHERE directory = ?"
        return dict(self._db.execute(sql, (directory,)).fetchall())

    def _leave(
        self, directory: str, missing: dict[str, str | None], unseen: Container[str]
    ) -> None:
        """`missing` was known of a directory, and the walk has not named it."""
        for name, version in missing.items() if directory not in unseen else ():
            if version:
                self._put_gone(directory, name, version)
            if is_folder(version):
                self._all_gone(paths.join(directory, name))

    def _all_gone(self, directory: str) -> None:
        scope = Scope(directory, deep=True)
        sql = f"SELECT directory, name, version FROM member WHERE version > '' AND {scope.where}"  # noqa: S608
        for gone in self._db.execute(sql, scope.bounds).fetchall():
            self._put_gone(*gone)

    def _put_gone(self, directory: str, name: str, last: str) -> None:
        self._put(directory, name, _GONE_FOLDER if is_folder(last) else None)

    def _put(self, directory: str, name: str, version: str | None) -> None:
        self._latest += 1
        self._db.execute(_PUT, (directory, name, self._latest, version))


def is_folder(version: str | None) -> bool:
    """Whether a version is that of a folder."""
    return version is not None and version.startswith(FOLDER)


def _shown(since: int) -> str:
    return "1" if since else "version > ''"


def _token(log_id: str, folder: str, number: int | str) -> str:
    # RFC 6578 section 3.2: a token is one of the folder that it was given for.
    of_folder = hashlib.sha256(folder.encode()).hexdigest()[:12]
    return f"{PREFIX}{log_id}-{of_folder}-{number}"
