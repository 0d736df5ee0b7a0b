"""Pure rules of the listing table: what an entry says, and which of two versions of it holds."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from davfusion.stores.store import Metadata

FILE: Final = "file"
DIRECTORY: Final = "dir"
ABSENT: Final = "absent"

LAG_SECONDS: Final = 10.0
"""How long a service's listing may show an older state than the one that we just made."""


@dataclass(frozen=True)
class Moment:
    """When something was asked of the store, or changed in it.

    `change` is the number of the share's last change at the time the call to the store began:
    an answer is never recorded over a change that came later. `age` is the seconds that
    knowledge of this moment stays fresh.
    """

    change: int
    at: float
    age: float

    @property
    def expires(self) -> float:
        return self.at + self.age

    @property
    def lag(self) -> float:
        return min(self.age, LAG_SECONDS)


class Entry(NamedTuple):
    """A row of the table: one path as it was at the change `as_of`."""

    kind: str
    bytes: int = 0
    modified: float = 0.0
    etag: str | None = None
    content_type: str | None = None
    expires: float = 0.0
    """An expired entry answers only where the store cannot, but its ETag still holds.

    0: a change of ours has left it open, so it answers nothing. Negative: not even where the store
    cannot, for a fresh answer was asked for at that time.
    """
    as_of: int = 0
    own: int = 0
    """The number of our last change of this path; 0: none known."""
    changed: float | None = None
    """When we left it in this state; None: it is not known to be as we left it."""
    listed: float | None = None
    """The date a listing showed for this ETag; it is not the true one where a service lists
    only the time of the upload."""

    @property
    def metadata(self) -> Metadata:
        return metadata_of(*self[:5])


def metadata_of(
    kind: str, size: int, modified: float, etag: str | None, content_type: str | None
) -> Metadata:
    """The metadata that an entry with these values has."""
    result: Metadata = {"modified": modified, "bytes": size, "is_dir": kind == DIRECTORY}
    if etag is not None:
        result["etag"] = etag
    if content_type is not None:
        result["content_type"] = content_type
    return result


def entry_of(metadata: Metadata | None, expires: float, as_of: int) -> Entry:
    """The entry that says what the store said; None: nothing is there."""
    if metadata is None:
        return Entry(ABSENT, expires=expires, as_of=as_of)
    return Entry(
        DIRECTORY if metadata["is_dir"] else FILE,
        metadata["bytes"],
        metadata["modified"],
        metadata.get("etag"),
        metadata.get("content_type"),
        expires,
        as_of,
    )


def from_stat(known: Entry | None, metadata: Metadata | None, fetch: Moment) -> Entry:
    """The entry after a stat, which is believed as it is."""
    entry = entry_of(metadata, fetch.expires, fetch.change)
    if known is None:
        return entry
    return entry._replace(
        own=known.own, changed=known.changed if known.kind == entry.kind else None
    )


def from_listing(known: Entry | None, metadata: Metadata | None, fetch: Moment) -> Entry:
    """The entry after a listing that has (None: lacks) it, unless it is known better."""
    entry = entry_of(metadata, fetch.expires, fetch.change)
    if known is None:
        return entry
    if known.as_of > fetch.change or lags(known, entry, fetch):
        return known
    entry = entry._replace(own=known.own, changed=known.changed)
    return _with_truth(entry, known) if _same_version(known, entry) else entry


def lags(known: Entry, listed: Entry, fetch: Moment) -> bool:
    """Whether the listing still shows what we have changed a moment ago.

    Our state wins without a look at the dates: they are of another clock, and may be a client's
    own.
    """
    if known.changed is None or fetch.at >= known.changed + fetch.lag:
        return False
    if known.kind != listed.kind:
        return True
    return known.kind == FILE and known.expires != 0 and not _agree(known, listed)


def _agree(one: Entry, other: Entry) -> bool:
    if one.etag is None or other.etag is None:
        return one.bytes == other.bytes
    return one.etag == other.etag


def _same_version(known: Entry, listed: Entry) -> bool:
    return (
        known.kind == listed.kind == FILE
        and known.etag is not None
        and known.etag == listed.etag
        and known.listed in (None, listed.modified)
    )


def _with_truth(listed: Entry, known: Entry) -> Entry:
    """`listed` with what only a stat or our own write can know of this version."""
    return listed._replace(
        modified=known.modified,
        content_type=listed.content_type or known.content_type,
        listed=listed.modified,
    )
