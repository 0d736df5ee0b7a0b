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


def is_ours(service: Store, row: Row, present: Metadata) -> bool:
    """Whether the file that the service has is what a try of the row has left there."""
    tried = {*row.sent.split(), row.etag or ""} - {""}
    if not tried or present.get("etag") in tried:
        return bool(tried)
    try:
        with service.open_read(row.path, etag=present.get("etag")) as content:
            return md5_of(content) in tried
    except (ConflictError, NoSuchFilesytemObjectError) as error:
        raise TransientStoreError(f"{row.path} is being changed by another program") from error


def md5_of(content: ReadableStream, interrupt_event: InterruptEvent | None = None) -> str:
    """The digest of all that is left, in hex."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks(content, interrupt_event):
        digest.update(block)
    return digest.hexdigest()
