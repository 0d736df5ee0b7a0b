"""Giving packs free of which little is still needed, since the store does not take that.

What waits for long gets a file of its own once all that is left in a pack takes less that way.
"""

import struct
from contextlib import suppress
from typing import Final

from davfusion.cache import journal_rows, packs, spool
from davfusion.cache.filestore import FileStore
from davfusion.cache.journal import ROW_COST, Journal
from davfusion.cache.pending import Row
from davfusion.stores.store import StoreSpaceLimitError

AFTER: Final = 60.0
"""Seconds that a change has waited by then."""


def unpack(journal: Journal, files: FileStore) -> None:
    """Look at all packs; by the mover."""
    for pack in packs.all_packs(files):
        rows = journal.in_pack(pack.name)
        if _is_wasteful(rows, packs.size_of(pack)) and packs.is_closed(pack):
            for row in rows:
                if row.first_change < journal.clock() - AFTER:
                    with suppress(OSError, struct.error, StoreSpaceLimitError):
                        _unpack(journal, files, row)  # if it cannot be, it stays where it is


def _is_wasteful(rows: list[Row], size: int) -> bool:
    return 0 < sum(row.bytes + ROW_COST for row in rows) < size // 2


def _unpack(journal: Journal, files: FileStore, row: Row) -> None:
    old = row.spool or ""
    try:
        own = spool.link_content(files, old)
    except FileNotFoundError:  # sent meanwhile
        return
    spool.flush(files)
    is_moved = False
    try:
        with journal.database.transaction() as db:
            now = journal_rows.get(db, row.path)
            if now is not None and now.spool == old and not journal_rows.is_sending(db, now.path):
                journal_rows.put(db, now._replace(spool=own))
                is_moved = True
    finally:
        spool.settle(files, own, is_needed=is_moved and journal.needs(own))
    if is_moved:
        packs.remove(files, old)
