"""The figures of one cache folder: what waits, what goes wrong, what is kept.

They are read beside a running server or without one, and nothing is changed. Lists hold the first
LISTED only, so that a hundred thousand pending changes cost no more than counting them.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from davfusion.cache.block_folder import INDEX
from davfusion.cache.folder import Away, CacheFolder
from davfusion.cache.pending import ABSENT, DIRECTORY, FAILED, FILE, WAITING
from davfusion.cache.reading import reading
from davfusion.cache.recovery import LOST

T = TypeVar("T")
LISTED: Final = 20


@dataclass(frozen=True)
class Some(Generic[T]):
    """How many there are, and the first of them."""

    count: int = 0
    first: tuple[T, ...] = ()


@dataclass(frozen=True)
class Totals:
    """All that the store has not got yet."""

    files: int = 0
    directories: int = 0
    deletions: int = 0
    bytes: int = 0
    oldest: float | None = None
    """When the oldest of these changes was made, in UTC seconds."""

    @property
    def count(self) -> int:
        """Of the paths."""
        return self.files + self.directories + self.deletions


@dataclass(frozen=True)
class Change:
    """A path that the store has not got yet; times in UTC seconds."""

    path: str
    kind: str
    """As Row.kind."""
    bytes: int
    sent: int
    """Bytes."""
    tries: int
    error: str | None
    since: float
    due: float


@dataclass(frozen=True)
class Conflict:
    """Another program changed the path meanwhile; `copy` is what ours was kept as.

    Where they are equal, ours was a deletion, and theirs stayed.
    """

    at: float
    path: str
    copy: str


@dataclass(frozen=True)
class JournalFigures:
    """Of the journal."""

    pending: Totals = Totals()
    sending: Some[Change] = field(default_factory=Some)
    failed: Some[Change] = field(default_factory=Some)
    """Not tried again until somebody asks for it."""
    retrying: Some[Change] = field(default_factory=Some)
    """Failed so far, and tried again by themselves."""
    conflicts: Some[Conflict] = field(default_factory=Some)
    """The latest first."""
    problem: str | None = None
    """Why the journal cannot be read."""


@dataclass(frozen=True)
class BlockFigures:
    """Of the content that is kept for reading."""

    bytes: int = 0
    hits: int = 0
    misses: int = 0


@dataclass(frozen=True)
class CacheStatus:
    """All figures of a cache."""

    in_use: bool
    """Whether a server, or a `davfusion drain`, works with it."""
    journal: JournalFigures
    blocks: BlockFigures
    spooled: int
    """Bytes of what waits to be sent and of what is being received."""
    lost: int
    """Files in lost+found."""
    away: Away | None = None
    """The store does not answer the server."""

    @property
    def needs_somebody(self) -> bool:
        """Whether something does not get well by itself."""
        return bool(self.journal.problem or self.journal.failed.count or self.lost)


def read_status(folder: CacheFolder) -> CacheStatus:
    """The figures of a moment."""
    in_use = folder.is_in_use()
    journal = _read_journal(folder.journal_path, in_use=in_use)
    spool = folder.path / "spool"
    return CacheStatus(
        in_use,
        journal,
        _read_blocks(folder.path / "blocks" / INDEX),
        journal.pending.bytes + sum(_sizes(spool / "tmp")),
        len(_sizes(spool / LOST)),
        folder.away() if in_use else None,
    )


def _read_journal(path: Path, *, in_use: bool) -> JournalFigures:
    if not path.exists():
        return JournalFigures()
    try:
        with reading(path) as db:
            # What a mover that was killed was sending is being sent no more.
            sending = _changes(db, "path IN (SELECT path FROM sending)") if in_use else Some()
            return JournalFigures(
                _totals(db),
                sending,
                _changes(db, "state = ?", FAILED),
                _changes(db, "state = ? AND attempts > 0", WAITING),
                _conflicts(db),
            )
    except sqlite3.Error as error:
        return JournalFigures(problem=str(error))


def _totals(db: sqlite3.Connection) -> Totals:
    sql = "SELECT kind, count(*), sum(bytes), min(first_change) FROM pending GROUP BY kind"
    found = {kind: rest for kind, *rest in db.execute(sql)}

    def number(kind: str) -> int:
        return int(found[kind][0]) if kind in found else 0

    size = sum(total for _, total, _ in found.values())
    oldest = min((first for _, _, first in found.values()), default=None)
    return Totals(number(FILE), number(DIRECTORY), number(ABSENT), size, oldest)


def _changes(db: sqlite3.Connection, where: str, *values: object) -> Some[Change]:
    (count,) = db.execute(f"SELECT count(*) FROM pending WHERE {where}", values).fetchone()  # noqa: S608
    sql = (
        "SELECT path, kind, bytes, progress, attempts, error, first_change, due"  # noqa: S608
        f" FROM pending WHERE {where} ORDER BY path LIMIT {LISTED}"
    )
    return Some(count, tuple(Change(*row) for row in db.execute(sql, values)))


def _conflicts(db: sqlite3.Connection) -> Some[Conflict]:
    (count,) = db.execute("SELECT count(*) FROM conflict").fetchone()
    sql = f"SELECT at, path, copy FROM conflict ORDER BY at DESC LIMIT {LISTED}"  # noqa: S608
    return Some(count, tuple(Conflict(*row) for row in db.execute(sql)))


def _read_blocks(index: Path) -> BlockFigures:
    """From diskcache's own table; an index that cannot be read is as good as none."""
    if not index.exists():
        return BlockFigures()
    sql = "SELECT key, value FROM Settings WHERE key IN ('size', 'hits', 'misses')"
    try:
        with reading(index) as db:
            found = {key: int(value) for key, value in db.execute(sql)}
    except (sqlite3.Error, ValueError, TypeError):
        return BlockFigures()
    files = (index, index.with_name(INDEX + "-wal"))
    size = found.get("size", 0) + sum(_existing_sizes(files))
    return BlockFigures(size, found.get("hits", 0), found.get("misses", 0))


def _sizes(folder: Path) -> list[int]:
    """Of the files in the folder, which may be missing."""
    try:
        return _existing_sizes(folder.iterdir())
    except FileNotFoundError:
        return []


def _existing_sizes(files: Iterable[Path]) -> list[int]:
    sizes = []
    for path in files:
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sizes
