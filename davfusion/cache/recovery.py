"""Bringing the journal and the spool in line when a server starts."""

import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from davfusion.cache import packs
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import Journal
from davfusion.cache.notes import read_note
from davfusion.cache.pending import FAILED, WAITING, Row
from davfusion.cache.spool import name_of
from davfusion.platform import fsync_directory

logger = logging.getLogger(__name__)

LOST: Final = "lost+found"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SIDECARS: Final = ("", "-wal", "-shm")


def problem(path: Path) -> str | None:
    """Why a database cannot be used, None if it can.

    Raises sqlite3.Error where it cannot be read for a reason that passes, a full disk for one.
    """
    if not path.exists():
        return "it is missing"
    try:
        return None if _is_sound(path) else "it is not sound"
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _DAMAGED:
            raise
        return str(error)


def set_aside(path: Path, reason: str) -> None:
    """Rename a database that cannot be used, if there is one: a new one begins then."""
    if not path.exists():
        return
    logger.error("%s cannot be read (%s): a new one begins", path, reason)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    for suffix in _SIDECARS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(
                path.with_name(f"{path.name}.damaged-{stamp}{suffix}")
            )
    fsync_directory(path.parent)


def _is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        return bool(verdict == "ok")
    finally:
        connection.close()


def interrupted(journal: Journal) -> list[str]:
    """Paths that were being moved or copied in the store when the server ended."""
    return [path for (path,) in journal.database.rows("SELECT path FROM hold")]


def reconcile(journal: Journal, spool: FileStore, folder: Path, *, is_whole: bool) -> None:
    """Give each row its file, and each file without a row the place where it belongs.

    What a row names goes back to `new`. What lies in `tmp` was never acknowledged, or has been
    sent, and is removed; unless the journal has lost rows (not `is_whole`) and the file is whole.
    Whatever else there is goes to `lost+found`: it is never deleted. What failed is to be tried
    again. Only for the owner of the folder, while nobody works in it.
    """
    with journal.database.transaction() as db:
        for table in ("sending", "hold"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - constants
        retry = "UPDATE pending SET state = ?, due = 0, attempts = 0 WHERE state = ?"
        db.execute(retry, (WAITING, FAILED))
    rows = {row.spool: row for row in journal.below("/") if row.spool is not None}
    for space in ("tmp", "cur", "new"):
        for found in map(Path, spool.list(space)):
            if (name := name_of(found)) in rows:
                _return(found, spool.path(name, "new"))
            elif space == "tmp" and (is_whole or read_note(found) is None):
                found.unlink()
            else:
                _keep(found, folder / LOST)
    for record in packs.records(spool):
        if record.name not in rows and not record.is_removed:
            _let_go(record, spool, folder / LOST, is_whole=is_whole)
    packs.sweep(spool, journal.needs_pack)
    _mark_missing(journal, spool, rows)


def _mark_missing(journal: Journal, spool: FileStore, rows: Mapping[str, Row]) -> None:
    lengths = {pack.name: packs.size_of(pack) for pack in packs.all_packs(spool)}
    for name, row in rows.items():
        if packs.is_packed(name):
            pack, least = packs.least_length(name, row.bytes)
            is_there = lengths.get(pack, 0) >= least
        else:
            path = spool.path(name, "new")
            is_there = path.exists() and path.stat().st_size >= row.bytes
        if not is_there:
            logger.error("the content of %s is missing in the spool", row.path)
            _mark_lost(journal, row.path)


def _is_lost(record: packs.Record, *, is_whole: bool) -> bool:
    """Whether the journal should name a record that it does not name; as of files in `tmp`."""
    if not is_whole:
        return read_note(record.path, record.start, record.end) is not None
    return record.is_named and not record.is_apart


def _let_go(record: packs.Record, spool: FileStore, lost: Path, *, is_whole: bool) -> None:
    if _is_lost(record, is_whole=is_whole):
        aside = spool.path(record.name, "tmp")
        aside.unlink(missing_ok=True)
        packs.copy(spool, record.name, aside)
        _keep(aside, lost)
    packs.remove(spool, record.name)


def _return(found: Path, target: Path) -> None:
    if not target.exists():
        found.rename(target)


def _keep(found: Path, lost: Path) -> None:
    lost.mkdir(mode=0o700, exist_ok=True)
    logger.error("%s belongs to no pending change: it is kept in %s", found.name, lost)
    found.rename(lost / found.name)
    fsync_directory(lost)


def _mark_lost(journal: Journal, path: str) -> None:
    with journal.database.transaction() as db:
        db.execute(
            "UPDATE pending SET state = ?, error = ? WHERE path = ?",
            (FAILED, "its content is missing in the spool", path),
        )
