"""Telling versions of a file that we have stored from those of other programs."""

from davfusion.cache import digests
from davfusion.cache.pending import Row
from davfusion.stores.store import (
    ConflictError,
    Metadata,
    NoSuchFilesytemObjectError,
    Store,
    TransientStoreError,
)


def found(service: Store, path: str) -> Metadata | None:
    """What the service has there now, None for nothing."""
    try:
        return service.get_metadata(path)
    except NoSuchFilesytemObjectError:
        return None


def our_version(service: Store, row: Row, present: Metadata) -> str | None:
    """The digest of the content that the service has, if it was tried for the row; else None."""
    tried = {*row.sent.split(), *filter(None, [row.etag])}
    etag = present.get("etag")
    if not tried or etag in tried:
        return etag if tried else None
    try:
        with service.open_read(row.path, etag=etag) as content:
            return digests.matching(content, tried)
    except (ConflictError, NoSuchFilesytemObjectError) as error:
        raise TransientStoreError(f"{row.path} is being changed by another program") from error
