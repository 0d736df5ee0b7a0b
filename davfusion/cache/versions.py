"""Telling versions of a file that we have stored from those of other programs."""

import hashlib

from davfusion.cache.pending import Row
from davfusion.stores.store import (
    ConflictError,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    Store,
    TransientStoreError,
)
from davfusion.stores.transfer import blocks


def found(service: Store, path: str) -> Metadata | None:
    """What the service has there now, None for nothing."""
    try:
        return service.get_metadata(path)
    except NoSuchFilesytemObjectError:
        return None


def our_version(service: Store, row: Row, present: Metadata) -> str | None:
    """The MD5 of the content that the service has, if it was tried for the row; else None."""
    tried = {*row.sent.split(), row.etag} - {None}
    digest = present.get("etag")
    if tried and digest not in tried:
        digest = _md5_of_stored(service, row.path, digest)
    return digest if digest in tried else None


def _md5_of_stored(service: Store, path: str, etag: str | None) -> str:
    try:
        with service.open_read(path, etag=etag) as content:
            return md5_of(content)
    except (ConflictError, NoSuchFilesytemObjectError) as error:
        raise TransientStoreError(f"{path} is being changed by another program") from error


def md5_of(content: ReadableStream, interrupt_event: InterruptEvent | None = None) -> str:
    """The digest of all that is left, in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks(content, interrupt_event):
        digest.update(block)
    return digest.hexdigest()
