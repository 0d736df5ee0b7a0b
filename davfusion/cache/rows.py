"""The listing table's rows: reading them, and whether an answer of the store is still news.

Subtrees are ranges of `dir`, never patterns: `/a` must not touch `/ab`.
"""

import sqlite3
from typing import NamedTuple

from davfusion.cache.entry import ABSENT, DIRECTORY, Entry, Moment, metadata_of
from davfusion.database import below
from davfusion.stores import paths
from davfusion.stores.store import Metadata

# `born` tells this file from one that was lost: numbers taken from that one lie below it.
SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    dir TEXT, name TEXT, kind TEXT NOT NULL, bytes INTEGER NOT NULL, modified REAL NOT NULL,
    etag TEXT, content_type TEXT, expires REAL NOT NULL, as_of INTEGER NOT NULL,
    own INTEGER NOT NULL, changed REAL, listed REAL,
    PRIMARY KEY (dir, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listing (
    dir TEXT PRIMARY KEY, expires REAL NOT NULL, as_of INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS walk (dir TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS change (
    only_row INTEGER PRIMARY KEY, born INTEGER NOT NULL, latest INTEGER NOT NULL
);
INSERT OR IGNORE INTO change SELECT 1, now, now FROM
    (SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000 AS now);
"""
_COLUMNS = ", ".join(Entry._fields)
PUT = f"INSERT OR REPLACE INTO entry VALUES (?, ?, {', '.join('?' * len(Entry._fields))})"  # noqa: S608
BELOW = "(dir = ? OR dir >= ? AND dir < ?)"


def number(db: sqlite3.Connection, sql: str) -> int:
    (value,) = db.execute(sql).fetchone()
    return int(value)


def key(path: str) -> tuple[str, str]:
    """Primary key of the entry; the root lies in no listing."""
    return ("", "") if path == paths.ROOT else (paths.parent(path), paths.name(path))


def subtree(directory: str) -> tuple[str, str, str]:
    return (directory, *below(directory))


def read_entry(db: sqlite3.Connection, path: str) -> Entry | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM entry WHERE dir = ? AND name = ?",  # noqa: S608
        key(path),
    ).fetchone()
    return row and Entry(*row)


def write_entry(db: sqlite3.Connection, path: str, entry: Entry) -> None:
    db.execute(PUT, (*key(path), *entry))


def read_listing(db: sqlite3.Connection, directory: str) -> tuple[float, int]:
    """When the listing expires, and the change it is known as of; zeros when there is none."""
    row = db.execute("SELECT expires, as_of FROM listing WHERE dir = ?", (directory,)).fetchone()
    return row or (0.0, 0)


def write_listing(db: sqlite3.Connection, directory: str, expires: float, as_of: int) -> None:
    """Say that the entries of `directory` are all its children."""
    db.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?)", (directory, expires, as_of))


def find(db: sqlite3.Connection, path: str, now: float) -> Entry | None:
    """What is fresh of `path`: its entry, or that it is absent since nothing can be there."""
    for step in (path, *paths.ancestors(path)):
        entry = read_entry(db, step)
        if entry is not None and entry.expires > now:
            if step == path:
                return entry
            return None if entry.kind == DIRECTORY else Entry(ABSENT)
        if entry is None and step != paths.ROOT and read_listing(db, paths.parent(step))[0] > now:
            return Entry(ABSENT)
    return None


def remembered(db: sqlite3.Connection, path: str) -> Entry | None:
    """What the store said last of `path`, or that it is absent since nothing could be there.

    None: it never said, or a change of ours has left it open since.
    """
    for step in (path, *paths.ancestors(path)):
        entry = read_entry(db, step)
        if entry is not None and entry.expires == 0:
            return None
        if entry is not None and step == path:
            return entry
        if entry is not None:
            return None if entry.kind == DIRECTORY else Entry(ABSENT, expires=entry.expires)
        if step != paths.ROOT and (listed := read_listing(db, paths.parent(step))[0]) > 0:
            return Entry(ABSENT, expires=listed)
    return None


def read_children(db: sqlite3.Connection, directory: str) -> dict[str, Entry]:
    sql = f"SELECT name, {_COLUMNS} FROM entry WHERE dir = ?"  # noqa: S608
    return {name: Entry(*row) for name, *row in db.execute(sql, (directory,))}


def fresh_children(
    db: sqlite3.Connection, directory: str, now: float
) -> dict[str, Metadata] | None:
    if read_listing(db, directory)[0] <= now:
        return None
    sql = "SELECT name, expires, kind, bytes, modified, etag, content_type FROM entry WHERE dir = ?"
    rows = db.execute(sql, (directory,)).fetchall()
    if any(row[1] <= now for row in rows):
        return None
    return {name: metadata_of(*known) for name, _, *known in rows if known[0] != ABSENT}


def names_like(db: sqlite3.Connection, directory: str, folded: str, now: float) -> list[str] | None:
    """Names that are `folded` but for the case, and all that are not ASCII."""
    if read_listing(db, directory)[0] <= now:
        return None
    sql = (
        "SELECT name FROM entry WHERE dir = ? AND kind <> 'absent'"
        " AND (name = ? COLLATE NOCASE OR name GLOB '*[^ -~]*')"
    )
    return [name for (name,) in db.execute(sql, (directory, folded))]


def remembered_children(
    db: sqlite3.Connection, directory: str, until: float
) -> dict[str, Entry] | None:
    """The last complete listing of `directory`, if it expired at `until` or before.

    With what our own changes have made of it; one that failed is taken for not done.
    """
    if not 0 < read_listing(db, directory)[0] <= until:
        return None
    rows = read_children(db, directory)
    return {name: entry for name, entry in rows.items() if entry.kind != ABSENT}


def doubt_listings(db: sqlite3.Connection, path: str) -> None:
    """The listings above `path` are complete no more, for something has happened to it."""
    for directory in paths.ancestors(path):
        db.execute("UPDATE listing SET expires = -abs(expires) WHERE dir = ?", (directory,))


def knows_tree(db: sqlite3.Connection, directory: str, now: float) -> bool:
    unlisted = (
        "SELECT 1 FROM entry WHERE kind = 'dir' AND name <> '' AND " + BELOW + " AND"  # noqa: S608
        " NOT EXISTS (SELECT 1 FROM listing WHERE expires > ? AND listing.dir ="
        " CASE entry.dir WHEN '/' THEN '/' ELSE entry.dir || '/' END || entry.name) LIMIT 1"
    )
    return (
        read_listing(db, directory)[0] > now
        and db.execute(unlisted, (*subtree(directory), now)).fetchone() is None
    )


def claim_walk(db: sqlite3.Connection, directory: str, now: float, until: float) -> bool:
    db.execute("DELETE FROM walk WHERE until <= ?", (now,))
    return db.execute("INSERT OR IGNORE INTO walk VALUES (?, ?)", (directory, until)).rowcount == 1


def changed_since(db: sqlite3.Connection, path: str, moment: Moment) -> bool:
    """Whether we have changed `path`, or a directory above it as a whole, since."""
    steps = (path, *paths.ancestors(path))
    entries = (read_entry(db, step) for step in steps)
    return _lost(db, moment) or any(e is not None and e.own > moment.change for e in entries)


def changed_below(db: sqlite3.Connection, directory: str, moment: Moment) -> bool:
    """Whether we have changed something below `directory` since."""
    sql = f"SELECT 1 FROM entry WHERE own > ? AND {BELOW} LIMIT 1"  # noqa: S608
    return db.execute(sql, (moment.change, *subtree(directory))).fetchone() is not None


def overtaken(db: sqlite3.Connection, path: str, fetch: Moment) -> bool:
    """Whether an answer about `path` is older than what is known of it or the tree above."""
    for step in (path, *paths.ancestors(path)):
        directory, _ = key(step)
        gone = read_entry(db, step) is None
        if gone and read_listing(db, directory)[1] > fetch.change:
            return True
    return changed_since(db, path, fetch)


def _lost(db: sqlite3.Connection, moment: Moment) -> bool:
    """Whether the table was made anew since, so that changes since then are not known."""
    return moment.change < number(db, "SELECT born FROM change")


class Ends(NamedTuple):
    """What expired at these times or before is dropped."""

    absent: float
    listings: float
    present: float
    """At least an age before `listings`: a listing that answers has all its entries."""


def prune(db: sqlite3.Connection, ends: Ends) -> None:
    """Drop what nobody will want to know; an entry that expires at 0 waits to be confirmed."""
    db.execute(
        "DELETE FROM entry WHERE expires <> 0 AND"
        " abs(expires) <= CASE kind WHEN 'absent' THEN ? ELSE ? END",
        (ends.absent, ends.present),
    )
    db.execute("DELETE FROM listing WHERE abs(expires) <= ?", (ends.listings,))


def end_fresher(db: sqlite3.Connection, now: float, latest: float) -> None:
    for table in ("entry", "listing"):
        sql = f"UPDATE {table} SET expires = ? WHERE expires > ?"  # noqa: S608 - constants
        db.execute(sql, (now, latest))


def drop_below(db: sqlite3.Connection, path: str) -> None:
    for table in ("entry", "listing"):
        sql = f"DELETE FROM {table} WHERE {BELOW}"  # noqa: S608 - constants
        db.execute(sql, subtree(path))
