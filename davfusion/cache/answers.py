"""Recording the store's answers in the listing table."""

import sqlite3
from collections.abc import Iterable, Mapping

from davfusion.cache.entry import (
    ABSENT,
    DIRECTORY,
    Entry,
    Moment,
    entry_of,
    from_listing,
    from_stat,
    lags,
)
from davfusion.cache.rows import (
    PUT,
    drop_below,
    overtaken,
    read_children,
    read_entry,
    read_listing,
    write_entry,
    write_listing,
)
from davfusion.stores import paths
from davfusion.stores.store import Metadata


def record_entry(
    db: sqlite3.Connection, path: str, metadata: Metadata | None, fetch: Moment
) -> None:
    known = read_entry(db, path)
    if overtaken(db, path, fetch) or (known is not None and known.as_of > fetch.change):
        return
    entry = from_stat(known, metadata, fetch)
    if entry.kind != DIRECTORY:
        drop_below(db, path)
    write_entry(db, path, entry)


def record_listing(
    db: sqlite3.Connection, directory: str, listed: Mapping[str, Metadata], fetch: Moment
) -> dict[str, Metadata]:
    known = read_children(db, directory)
    entries = {
        name: from_listing(known.get(name), listed.get(name), fetch)
        for name in (*listed, *(name for name in known if name not in listed))
    }
    if not overtaken(db, directory, fetch) and not _is_listed_later(db, directory, fetch):
        _replace_listing(db, directory, known, entries)
        write_listing(db, directory, _listing_expires(known, listed, fetch), fetch.change)
    return _shown(known, entries, listed, fetch)


def _is_listed_later(db: sqlite3.Connection, directory: str, fetch: Moment) -> bool:
    """Whether what is known was asked for later: only then does it stay fresh for longer."""
    expires, as_of = read_listing(db, directory)
    return as_of > fetch.change or (as_of == fetch.change and expires > fetch.expires)


def _replace_listing(
    db: sqlite3.Connection,
    directory: str,
    known: Mapping[str, Entry],
    entries: Mapping[str, Entry],
) -> None:
    for name, before in known.items():
        if before.kind == DIRECTORY != entries[name].kind:
            drop_below(db, paths.join(directory, name))
    db.execute("DELETE FROM entry WHERE dir = ?", (directory,))
    kept = (
        (directory, name, *entry)
        for name, entry in entries.items()
        if entry.kind != ABSENT or entry is known.get(name)
    )
    db.executemany(PUT, kept)


def _listing_expires(
    known: Mapping[str, Entry], listed: Mapping[str, Metadata], fetch: Moment
) -> float:
    """The end of the lag window where the listing had to be corrected."""
    corrected = [
        entry.changed + fetch.lag
        for name, entry in known.items()
        if entry.changed is not None
        and entry.as_of <= fetch.change
        and lags(entry, entry_of(listed.get(name), 0, 0), fetch)
    ]
    return min([fetch.expires, *corrected])


def _shown(
    known: Iterable[str],
    entries: Mapping[str, Entry],
    listed: Mapping[str, Metadata],
    fetch: Moment,
) -> dict[str, Metadata]:
    """The children to answer with: of a path that we do not know, what the store listed."""
    shown = dict(listed)
    for name in known:
        entry = entries[name]
        if _is_unknown(entry, fetch):
            continue
        if entry.kind == ABSENT:
            shown.pop(name, None)
        else:
            shown[name] = entry.metadata
    return shown


def best_known(known: Entry | None, listed: Metadata, fetch: Moment) -> Metadata | None:
    """What to answer with for a path that a listing has; None: it is known to be gone."""
    entry = from_listing(known, listed, fetch)
    if _is_unknown(entry, fetch):
        return listed
    return None if entry.kind == ABSENT else entry.metadata


def _is_unknown(entry: Entry, fetch: Moment) -> bool:
    return entry.expires <= fetch.at and entry.changed is None
