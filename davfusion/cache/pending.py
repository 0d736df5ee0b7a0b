"""A path whose state the store must still reach: the rows of the journal, and what becomes of one.

A row says what must be at its path in the end (a file, a directory, nothing) and what the store
has to lose first (`clears`), all below it included. It is state, not history: a change of a path
replaces its row.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from davfusion.stores.store import Metadata

FILE: Final = "file"
DIRECTORY: Final = "dir"
ABSENT: Final = "absent"
NOTHING: Final = ""
"""As `clears` and in Held: nothing is there."""
EITHER: Final = "any"
"""As `clears`: a file or a directory, nobody knows which."""

WAITING: Final = "waiting"
FAILED: Final = "failed"

DELETIONS: Final = "deletions"
"""As a lane: deletions of files, many of which are sent together."""
LARGE: Final = "large"
"""As a lane: files that are sent over several connections each."""
SMALL: Final = "small"
"""As a lane: all else."""
LARGE_FROM: Final = 16 << 20
"""Bytes."""
LANES: Final = {
    DELETIONS: "state = 'waiting' AND kind = 'absent' AND clears = 'file'",
    LARGE: f"state = 'waiting' AND bytes >= {LARGE_FROM}",
    SMALL: f"state = 'waiting' AND bytes < {LARGE_FROM} AND (kind <> 'absent' OR clears <> 'file')",
}
"""What the waiting rows of each lane are in SQL, an index for each."""

_LANE_INDEXES: Final = "".join(
    f"CREATE INDEX IF NOT EXISTS pending_{lane} ON pending (due) WHERE {rows};\n"
    for lane, rows in LANES.items()
)
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS pending (
    path TEXT PRIMARY KEY, parent TEXT NOT NULL, kind TEXT NOT NULL, clears TEXT NOT NULL,
    spool TEXT, bytes INTEGER NOT NULL, modified REAL NOT NULL, etag TEXT, content_type TEXT,
    base TEXT, generation INTEGER NOT NULL, first_change REAL NOT NULL, due REAL NOT NULL,
    state TEXT NOT NULL, begun REAL, sent TEXT NOT NULL, token TEXT, progress INTEGER NOT NULL,
    attempts INTEGER NOT NULL, error TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_of_parent ON pending (parent);
CREATE INDEX IF NOT EXISTS pending_by_due ON pending (state, due);
CREATE INDEX IF NOT EXISTS pending_by_spool ON pending (spool) WHERE spool IS NOT NULL;
CREATE TABLE IF NOT EXISTS alias (
    path TEXT PRIMARY KEY, parent TEXT NOT NULL, stored TEXT NOT NULL, given TEXT NOT NULL,
    modified REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alias_of_parent ON alias (parent);
CREATE TABLE IF NOT EXISTS sending (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hold (path TEXT NOT NULL, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS abandoned (path TEXT NOT NULL, token TEXT, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS tried (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS conflict (at REAL NOT NULL, path TEXT NOT NULL, copy TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS total (
    only_row INTEGER PRIMARY KEY, changes INTEGER NOT NULL, done INTEGER NOT NULL,
    bytes INTEGER NOT NULL, paths INTEGER NOT NULL
);
INSERT OR IGNORE INTO total VALUES (1, 0, 0, 0, 0);
CREATE TRIGGER IF NOT EXISTS pending_grows AFTER INSERT ON pending
    BEGIN UPDATE total SET bytes = bytes + new.bytes, paths = paths + 1; END;
CREATE TRIGGER IF NOT EXISTS pending_shrinks AFTER DELETE ON pending
    BEGIN UPDATE total SET bytes = bytes - old.bytes, paths = paths - 1; END;
CREATE TABLE IF NOT EXISTS packed (only_row INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
INSERT OR IGNORE INTO packed VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS packed_grows AFTER INSERT ON pending WHEN instr(new.spool, '@')
    BEGIN UPDATE packed SET bytes = bytes + new.bytes; END;
CREATE TRIGGER IF NOT EXISTS packed_shrinks AFTER DELETE ON pending WHEN instr(old.spool, '@')
    BEGIN UPDATE packed SET bytes = bytes - old.bytes; END;
{_LANE_INDEXES}"""  # noqa: S608 - constants


PARTS_FROM: Final = 5 << 20
"""Bytes; no store takes smaller files in parts, so nothing can be left of an upload of one."""


class Row(NamedTuple):
    """One path of the journal; times in UTC seconds."""

    path: str
    kind: str
    """FILE, DIRECTORY or ABSENT: what must be there in the end."""
    clears: str = NOTHING
    """What the store must lose there before: NOTHING, FILE, DIRECTORY (and all below) or EITHER."""
    spool: str | None = None
    """Name of the content in the spool."""
    bytes: int = 0
    modified: float = 0.0
    etag: str | None = None
    """What clients know the content by: its digest (digests.py)."""
    content_type: str | None = None
    base: str | None = ""
    """The store's ETag of what this replaces; "": nothing; None: whatever is there."""
    generation: int = 0
    """The number of the change that made this row what it is."""
    first_change: float = 0.0
    due: float = 0.0
    state: str = WAITING
    begun: float | None = None
    """When the first try of sending began; None: nothing of it can be in the store."""
    sent: str = ""
    """ETags of content whose sending ended nobody knows how, separated by spaces."""
    token: str | None = None
    """What the store needs to go on with the upload."""
    progress: int = 0
    """Bytes sent by now."""
    attempts: int = 0
    error: str | None = None

    @property
    def metadata(self) -> Metadata:
        """Of the file or directory, as clients see it."""
        result = Metadata(modified=self.modified, bytes=self.bytes, is_dir=self.kind == DIRECTORY)
        if self.etag is not None:
            result["etag"] = self.etag
        if self.content_type is not None:
            result["content_type"] = self.content_type
        return result

    @property
    def hides_below(self) -> bool:
        """Whether nothing that the store has below the path is to be seen.

        A directory that is not in the store yet has nothing below it there.
        """
        return self.kind != DIRECTORY or self.clears != NOTHING or self.begun is None

    @property
    def held(self) -> str:
        """What the store may have at the path: NOTHING, FILE, DIRECTORY or EITHER."""
        is_unsent = self.begun is None and (self.kind == DIRECTORY or self.base == "")
        if self.kind == ABSENT or is_unsent:
            return self.clears
        return self.kind if self.clears in (NOTHING, self.kind) else EITHER


COLUMNS: Final = ", ".join(Row._fields)
INSERT: Final = (
    f"INSERT INTO pending (parent, {COLUMNS}) "  # noqa: S608 - constants
    f"VALUES ({', '.join('?' * (len(Row._fields) + 1))})"
)


@dataclass(frozen=True)
class View:
    """What the journal says of a path."""

    path: str
    row: Row | None
    hidden: bool
    """Whether what the store has there is not to be seen, by a row above."""
    done: int
    """How many rows had reached the store so far."""
    above: frozenset[str] = frozenset()
    """The directories above that are to be seen by a row, whatever the store has there."""

    def same_above(self, other: "View") -> bool:
        """Whether the directories above are still there, as far as the journal makes them be."""
        return self.hidden == other.hidden and self.above == other.above

    def same(self, other: "View") -> bool:
        """Whether nothing that matters for the path has happened between the two views."""
        return (
            self.done == other.done
            and self.same_above(other)
            and (self.row and self.row.generation) == (other.row and other.row.generation)
        )


@dataclass(frozen=True)
class Held:
    """What the store has at a path, as far as is known; nothing where a row above hides it."""

    kind: str
    """NOTHING, FILE or DIRECTORY."""
    etag: str | None = None
    """The store's own."""
    given: str | None = None
    """What clients know the version by."""

    @property
    def base(self) -> str | None:
        """As Row.base, for a file written over it."""
        return self.etag if self.kind == FILE else ""


def vacated(row: Row | None, held: Held, path: str) -> Row | None:
    """The row of a path that is deleted; None: the store has nothing to lose there."""
    if row is None:
        gone = Row(path, ABSENT, held.kind, base=held.base)
    elif row.kind == ABSENT:
        return row
    else:
        clears = row.held or held.kind
        gone = Row(path, ABSENT, clears, base=row.base, begun=row.begun, sent=row.sent)
    return None if gone.clears == NOTHING else gone


def occupied(row: Row | None, held: Held, new: Row) -> Row:
    """`new`, put where `row` or else `held` was: with what it must clear, and its base."""
    gone = vacated(row, held, new.path)
    if gone is None:
        return new._replace(clears=NOTHING, base="")
    sent, begun = gone.sent, gone.begun
    if new.kind == FILE and gone.clears == FILE:
        return new._replace(clears=NOTHING, base=gone.base, sent=sent, begun=begun)
    base = gone.base if gone.clears == FILE else ""
    return new._replace(clears=gone.clears, base=base, sent=sent, begun=begun)
