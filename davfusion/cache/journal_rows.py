"""Reading and writing the journal's rows, inside of a transaction of the caller."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from davfusion.cache.pending import (
    ABSENT,
    COLUMNS,
    DELETIONS,
    DIRECTORY,
    FILE,
    INSERT,
    LANES,
    PARTS_FROM,
    Row,
    View,
)
from davfusion.database import below
from davfusion.stores import paths
from davfusion.stores.store import Metadata

Query = Callable[[str, Sequence[Any]], list[Any]]
DELETED_EARLY: Final = 0.25
"""Seconds."""
_BELOW = "path >= ? AND path < ?"


class Alias(NamedTuple):
    """What clients know a version in the store by, where the store calls it otherwise."""

    stored: str
    given: str
    modified: float

    def applied(self, metadata: Metadata) -> Metadata:
        """`metadata` of the store as clients see it."""
        if metadata.get("etag") != self.stored:
            return metadata
        return {**metadata, "etag": self.given, "modified": self.modified}


def view(db: sqlite3.Connection, path: str) -> View:
    return view_by(lambda sql, values: db.execute(sql, values).fetchall(), path)


def view_by(query: Query, path: str) -> View:
    """As view, by one query, which needs no transaction."""
    steps = [path, *paths.ancestors(path)]
    marks = ", ".join("?" * len(steps))
    columns = COLUMNS.replace("bytes", "pending.bytes")
    sql = (
        f"SELECT done, {columns} FROM total"  # noqa: S608
        f" LEFT JOIN pending ON path IN ({marks})"
    )
    found = query(sql, steps)
    rows = {row[0]: Row(*row) for _, *row in found if row[0] is not None}
    own = rows.pop(path, None)
    shown = frozenset(row.path for row in rows.values() if row.kind != ABSENT)
    return View(path, own, any(row.hides_below for row in rows.values()), found[0][0], shown)


def done_if_idle(query: Query) -> int | None:
    """As in all views, if there are neither rows nor aliases; by one query."""
    sql = (
        "SELECT done FROM total WHERE NOT EXISTS (SELECT 1 FROM pending)"
        " AND NOT EXISTS (SELECT 1 FROM alias)"
    )
    found = query(sql, ())
    return int(found[0][0]) if found else None


def get(db: sqlite3.Connection, path: str) -> Row | None:
    sql = f"SELECT {COLUMNS} FROM pending WHERE path = ?"  # noqa: S608
    row = db.execute(sql, (path,)).fetchone()
    return row and Row(*row)


def generation(db: sqlite3.Connection, path: str) -> int | None:
    row = db.execute("SELECT generation FROM pending WHERE path = ?", (path,)).fetchone()
    return row and int(row[0])


def due(db: sqlite3.Connection, lane: str, now: float) -> Iterator[Row]:
    """The rows of a lane that are to be sent at `now`, the longest due first.

    Deletions that are due go together with those that are due soon: one call does for all.
    """
    until = now + DELETED_EARLY if lane == DELETIONS else now
    sql = (
        f"SELECT {COLUMNS} FROM pending INDEXED BY pending_{lane}"  # noqa: S608
        f" WHERE {LANES[lane]} AND due <= ? AND (due <= ? OR attempts = 0) ORDER BY due"
    )
    found = (Row(*values) for values in db.execute(sql, (until, now)))
    first = next(found, None)
    if first is not None and first.due <= now:
        yield first
        yield from found


def children(db: sqlite3.Connection, directory: str) -> list[Row]:
    sql = f"SELECT {COLUMNS} FROM pending WHERE parent = ?"  # noqa: S608
    return [Row(*row) for row in db.execute(sql, (directory,))]


def rows_below(db: sqlite3.Connection, directory: str) -> list[Row]:
    """Of everything below, directories before what is in them."""
    sql = f"SELECT {COLUMNS} FROM pending WHERE {_BELOW} ORDER BY path"  # noqa: S608
    return [Row(*row) for row in db.execute(sql, below(directory))]


def rows_in(db: sqlite3.Connection, names: tuple[str, str]) -> list[Row]:
    """Whose content in the spool has a name of `names[0] <= name < names[1]`."""
    sql = f"SELECT {COLUMNS} FROM pending WHERE spool >= ? AND spool < ?"  # noqa: S608
    return [Row(*row) for row in db.execute(sql, names)]


def is_sending(db: sqlite3.Connection, path: str) -> bool:
    return bool(db.execute("SELECT 1 FROM sending WHERE path = ?", (path,)).fetchone())


def has_below(db: sqlite3.Connection, directory: str) -> bool:
    sql = f"SELECT 1 FROM pending WHERE {_BELOW} LIMIT 1"  # noqa: S608
    return db.execute(sql, below(directory)).fetchone() is not None


def put(db: sqlite3.Connection, row: Row) -> None:
    drop(db, row.path)
    db.execute(INSERT, (paths.parent(row.path), *row))


def drop(db: sqlite3.Connection, path: str) -> None:
    db.execute("DELETE FROM pending WHERE path = ?", (path,))


def drop_below(db: sqlite3.Connection, directory: str) -> None:
    db.execute(f"DELETE FROM pending WHERE {_BELOW}", below(directory))  # noqa: S608


def next_change(db: sqlite3.Connection) -> int:
    db.execute("UPDATE total SET changes = changes + 1")
    return latest_change(db)


def latest_change(db: sqlite3.Connection) -> int:
    (changes,) = db.execute("SELECT changes FROM total").fetchone()
    return int(changes)


def note_done(db: sqlite3.Connection) -> None:
    db.execute("UPDATE total SET done = done + 1")


def held(db: sqlite3.Connection) -> list[str]:
    """The paths that somebody moves, copies or stores past the journal; see Holds."""
    return [path for (path,) in db.execute("SELECT path FROM hold")]


def mark_begun(db: sqlite3.Connection, directories: Iterable[str], now: float) -> None:
    """Something of these directories may be in the store."""
    db.executemany(
        "UPDATE pending SET begun = ? WHERE path = ? AND kind = ? AND begun IS NULL",
        [(now, directory, DIRECTORY) for directory in directories],
    )


def aliases(db: sqlite3.Connection, directory: str) -> dict[str, Alias]:
    """Name -> alias of the files of a directory."""
    sql = "SELECT path, stored, given, modified FROM alias WHERE parent = ?"
    return {paths.name(path): Alias(*rest) for path, *rest in db.execute(sql, (directory,))}


def alias(db: sqlite3.Connection, path: str) -> Alias | None:
    sql = "SELECT stored, given, modified FROM alias WHERE path = ?"
    row = db.execute(sql, (path,)).fetchone()
    return row and Alias(*row)


def put_alias(db: sqlite3.Connection, path: str, known_as: Alias) -> None:
    sql = "INSERT OR REPLACE INTO alias VALUES (?, ?, ?, ?, ?)"
    db.execute(sql, (path, paths.parent(path), *known_as))


def drop_alias(db: sqlite3.Connection, path: str, *, tree: bool = False) -> None:
    db.execute("DELETE FROM alias WHERE path = ?", (path,))
    if tree:
        db.execute(f"DELETE FROM alias WHERE {_BELOW}", below(path))  # noqa: S608


def tried_below(db: sqlite3.Connection, directory: str) -> set[str]:
    """Files that a broken-off try of ours may have put there."""
    sql = f"SELECT path FROM tried WHERE {_BELOW}"  # noqa: S608
    return {path for (path,) in db.execute(sql, below(directory))}


def forget_tried(db: sqlite3.Connection, path: str, *, tree: bool) -> None:
    db.execute("DELETE FROM tried WHERE path = ?", (path,))
    if tree:
        db.execute(f"DELETE FROM tried WHERE {_BELOW}", below(path))  # noqa: S608


def abandon(db: sqlite3.Connection, row: Row) -> None:
    """Have what is left of an upload removed from the store, if there may be something."""
    if row.kind == FILE and row.begun is not None:
        db.execute("INSERT OR IGNORE INTO tried VALUES (?)", (row.path,))
    if row.token is not None or (row.sent and row.bytes >= PARTS_FROM):
        db.execute("INSERT INTO abandoned VALUES (?, ?, ?)", (row.path, row.token, row.begun))
