"""What a drain still waits for."""

from dataclasses import dataclass

from davfusion.cache.journal import Journal
from davfusion.cache.pending import COLUMNS, FAILED, WAITING, Row
from davfusion.database import below
from davfusion.stores import paths


@dataclass(frozen=True)
class Unsent:
    """What of a journal the store has not got."""

    waiting: int
    bytes: int
    blocked: int
    """Of those that wait: they lie below something that failed, and must follow it."""
    failed: tuple[Row, ...]
    error: str | None
    """Why one of those that wait has failed so far."""

    @property
    def is_nothing(self) -> bool:
        """Whether the store has everything."""
        return not self.waiting and not self.failed

    @property
    def is_final(self) -> bool:
        """Whether there is nothing left that could still be sent as things are."""
        return self.waiting == self.blocked


def unsent(journal: Journal) -> Unsent:
    """As of this moment."""
    with journal.database.transaction(write=False) as db:
        (waiting,) = db.execute(
            "SELECT count(*) FROM pending WHERE state = ?", (WAITING,)
        ).fetchone()
        sql = f"SELECT {COLUMNS} FROM pending WHERE state = ? ORDER BY path"  # noqa: S608
        failed = tuple(Row(*row) for row in db.execute(sql, (FAILED,)))
        outermost: list[str] = []
        for row in failed:
            if row.hides_below and not any(paths.is_below(row.path, top) for top in outermost):
                outermost.append(row.path)
        sql = "SELECT count(*) FROM pending WHERE state = ? AND path >= ? AND path < ?"
        below_failed = (db.execute(sql, (WAITING, *below(top))).fetchone() for top in outermost)
        blocked = sum(count for (count,) in below_failed)
        error = db.execute(
            "SELECT error FROM pending WHERE state = ? AND attempts > 0 LIMIT 1", (WAITING,)
        ).fetchone()
        (size,) = db.execute("SELECT bytes FROM total").fetchone()
    return Unsent(waiting, size, blocked, failed, error and error[0])
