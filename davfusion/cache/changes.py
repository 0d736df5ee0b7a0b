"""What our own changes do to the listing table, each in the transaction that numbers it.

Two changes of one path that overlap leave it unknown, since nobody can say which one the store
did last.
"""

import sqlite3

from davfusion.cache.entry import ABSENT, DIRECTORY, Entry, Moment, entry_of
from davfusion.cache.rows import (
    BELOW,
    changed_below,
    changed_since,
    doubt_listings,
    drop_below,
    find,
    read_entry,
    remembered,
    subtree,
    write_entry,
    write_listing,
)
from davfusion.stores import paths
from davfusion.stores.store import Metadata


def stored(
    db: sqlite3.Connection, path: str, metadata: Metadata, made: Moment, number: int
) -> bool:
    """Whether it could be recorded: no other change of ours overlapped it."""
    if changed_since(db, path, made):
        _leave_open(db, path, made.at, number)
        return False
    drop_below(db, path)
    entry = entry_of(metadata, made.expires, number)
    write_entry(db, path, entry._replace(own=number, changed=made.at))
    _need_parents(db, path, made.at, number)
    return True


def created_directory(db: sqlite3.Connection, directory: str, made: Moment, number: int) -> None:
    created = Metadata(modified=made.at, bytes=0, is_dir=True)
    if changed_below(db, directory, made) and not changed_since(db, directory, made):
        # What came into it meanwhile stays known, be it all of it or not.
        entry = entry_of(created, made.expires, number)
        write_entry(db, directory, entry._replace(own=number, changed=made.at))
        _need_parents(db, directory, made.at, number)
    elif stored(db, directory, created, made, number):
        write_listing(db, directory, made.expires, number)


def removed(db: sqlite3.Connection, path: str, kind: str, made: Moment, number: int) -> None:
    """The `kind` that was at `path` is gone; a store leaves one of the other kind alone.

    So this is no newer than the knowledge that it was of that kind, and expires with it.
    """
    known = find(db, path, made.at)
    if known is None or known.kind != kind or changed_since(db, path, made):
        _leave_open(db, path, made.at, number)
    else:
        _vacate(db, path, made, known.expires, number)


def _vacate(db: sqlite3.Connection, path: str, made: Moment, expires: float, number: int) -> None:
    drop_below(db, path)
    gone = Entry(ABSENT, expires=expires, as_of=number, own=number, changed=made.at)
    write_entry(db, path, gone)


def copied(db: sqlite3.Connection, src: str, dst: str, made: Moment, number: int) -> None:
    source = find(db, src, made.at)
    concurrent = changed_since(db, src, made) or changed_since(db, dst, made)
    if not concurrent and source is not None and source.kind != ABSENT:
        forget(db, dst, made.at, number)
        arrived = source._replace(etag=None)
        write_entry(db, dst, _unconfirmed(arrived, made.at, number))
    else:
        _leave_open(db, dst, made.at, number)
    _need_parents(db, dst, made.at, number)


def moved(db: sqlite3.Connection, src: str, dst: str, made: Moment, number: int) -> None:
    overlap = src == dst or paths.is_below(src, dst) or paths.is_below(dst, src)
    if overlap or changed_since(db, src, made) or changed_since(db, dst, made):
        _leave_open(db, src, made.at, number)
        _leave_open(db, dst, made.at, number)
        return
    source, fresh = read_entry(db, src), find(db, src, made.at)
    if source is not None and source.kind != ABSENT:
        forget(db, dst, made.at, number)
        arrived_at = made.at if fresh == source else None
        write_entry(db, dst, _unconfirmed(source, arrived_at, number))
    else:
        _leave_open(db, dst, made.at, number)
    _rekey_below(db, src, dst, number)
    _need_parents(db, dst, made.at, number)
    _vacate(db, src, made, made.expires, number)


def _leave_open(db: sqlite3.Connection, path: str, now: float, number: int) -> None:
    """Forget `path`, which we have changed; so what was listed above it is no more, too."""
    forget(db, path, now, number)
    doubt_listings(db, path)


def forget(db: sqlite3.Connection, path: str, now: float, number: int) -> None:
    """Know nothing of `path` and below, nor answer with what is being asked just now."""
    drop_below(db, path)
    known = read_entry(db, path) or Entry(ABSENT)
    write_entry(db, path, _unconfirmed(known, None, number))
    _need_parents(db, path, now, number, certain=False)


def expire(db: sqlite3.Connection, path: str, now: float, number: int) -> None:
    """Answer nothing about `path`: neither by itself, nor by what is said to lie above it."""
    for step in (path, *paths.ancestors(path)):
        known = find(db, step, now)
        if step != path and (known is None or known.kind == DIRECTORY):
            return
        entry = read_entry(db, step) or remembered(db, step) or Entry(ABSENT)
        ended = min(abs(entry.expires), now)
        write_entry(db, step, entry._replace(expires=-ended, as_of=number))


def _unconfirmed(entry: Entry, changed: float | None, number: int) -> Entry:
    """An entry that we know to be there since `changed`; its metadata is the store's to say."""
    expires = changed if changed is not None and entry.kind == DIRECTORY else 0.0
    return entry._replace(expires=expires, as_of=number, own=number, changed=changed, listed=None)


def _rekey_below(db: sqlite3.Connection, src: str, dst: str, number: int) -> None:
    """Let what is known below `src` be remembered below `dst`, where it answers nothing yet."""
    db.execute(
        "UPDATE entry SET dir = ? || substr(dir, ?), expires = 0, as_of = ?, changed = NULL,"  # noqa: S608
        f" listed = NULL WHERE kind <> 'absent' AND {BELOW}",
        (dst, len(src) + 1, number, *subtree(src)),
    )


def _need_parents(
    db: sqlite3.Connection, path: str, now: float, number: int, *, certain: bool = True
) -> None:
    """The directories above `path` are there since `now`, or, if not `certain`, perhaps.

    `own` stays as it is, for none of them was replaced.
    """
    for directory in paths.ancestors(path):
        if directory == paths.ROOT:
            return
        known = entry = read_entry(db, directory) or Entry(ABSENT)
        is_known = known.kind == DIRECTORY and known.expires != 0
        if certain:
            made = Entry(DIRECTORY, modified=now, expires=now)
            entry = (known if is_known else made)._replace(changed=now)
        elif not is_known:
            entry = known._replace(expires=0.0, changed=None)
        write_entry(db, directory, entry._replace(as_of=number, own=known.own))
