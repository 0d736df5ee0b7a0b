"""lost+found: content that no change names, and putting it back where its note says it belongs.

Beside a running server too. What is put back is a write that replaces nothing: a version that the
store has stays, and the one put back becomes its conflicted copy.
"""

import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from davfusion.cache import conflicts, journal_rows
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import Journal
from davfusion.cache.journal_change import Change, OvertakenError
from davfusion.cache.notes import Note, read_note
from davfusion.cache.pending import FILE, WAITING, Row
from davfusion.cache.recovery import LOST
from davfusion.cache.spool import content_problem
from davfusion.platform import fsync_directory
from davfusion.stores import paths


@dataclass(frozen=True)
class LostFile:
    """A file of lost+found; without `note` nobody knows whose content it is, or it is not whole."""

    file: Path
    note: Note | None


def lost_files(spool_folder: Path) -> list[LostFile]:
    """All of them, by name."""
    folder = spool_folder / LOST
    found = []
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(FileNotFoundError):  # somebody else has just put it back
            found.append(LostFile(file, read_note(file)))
    return found


def put_back(journal: Journal, spool: FileStore, lost: LostFile) -> str | None:
    """Make it pending again; the path that it got. None where it has to stay.

    At no moment would a crash lose it: it is in lost+found, or the next start moves it there, or
    the journal names it.
    """
    note, name = lost.note, uuid.uuid4().hex
    if note is None:
        return None
    target = spool.path(name, "new")
    try:
        lost.file.rename(target)
    except FileNotFoundError:
        return None
    fsync_directory(target.parent)
    try:
        with journal.change() as change:
            row = _row(change, spool, note)
            change.make_directories(_above(row.path))
            change.insert(row._replace(spool=name))
    except OvertakenError:  # a file is now where one of its directories was
        target.rename(lost.file)
        return None
    except BaseException:
        target.rename(lost.file)
        raise
    fsync_directory(lost.file.parent)
    return row.path


def _row(change: Change, spool: FileStore, note: Note) -> Row:
    """The change that the content belongs to: one that has lost its own, or a new one."""
    path, old = note.path, journal_rows.get(change.db, note.path)
    if old is not None and old.etag == note.digest and content_problem(spool, old):
        return old._replace(state=WAITING, attempts=0, error=None)
    if old is not None or journal_rows.has_below(change.db, path):
        path = conflicts.free_name(path, lambda copy: journal_rows.get(change.db, copy) is not None)
    return Row(
        path,
        FILE,
        bytes=note.bytes,
        modified=note.modified,
        etag=note.digest,
        content_type=note.content_type,
    )


def _above(path: str) -> list[str]:
    """The directories above that can be made, the outermost first."""
    return [directory for directory in paths.ancestors(path) if directory != paths.ROOT][::-1]
