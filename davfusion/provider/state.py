"""state.sqlite: what DAV clients leave on the server beside the files themselves.

It survives restarts and a cleared cache, and is one file for all workers.
"""

import time
from collections.abc import Callable
from pathlib import Path

from davfusion.database import Database
from davfusion.provider import locks, properties


class State:
    """Locks and dead properties; `path=None` keeps them in memory."""

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        database = Database(path, locks.SCHEMA + properties.SCHEMA, durable=True)
        self.locks = locks.LockTable(database, clock)
        self.properties = properties.DeadProperties(database)
        self.close = database.close

    def forget(self, path: str) -> None:
        """`path` and all below it are gone."""
        self.locks.remove_tree(path)
        self.properties.remove_tree(path)
