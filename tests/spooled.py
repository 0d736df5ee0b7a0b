"""What a spool holds, in files of their own and in packs."""

from pathlib import Path

from davfusion.cache import packs
from davfusion.cache.filestore import FileStore


def sizes(spool: Path, *, with_tmp: bool = True) -> dict[str, int]:
    """Name -> bytes of each content, with its note, that has not been removed.

    Without `tmp` also without those that were set apart or are named by no row yet.
    """
    unread = {"packs"} if with_tmp else {"packs", "tmp"}
    found = {
        file.name: file.stat().st_size
        for file in spool.glob("*/*")
        if file.parent.name not in unread
    }
    kept = (
        record
        for record in packs.records(FileStore(spool))
        if not record.is_removed and (with_tmp or (record.is_named and not record.is_apart))
    )
    return found | {record.name: record.end - record.start for record in kept}
