"""The lock table (RFC 4918 sections 6 and 7), shared by all workers and kept across restarts.

Deciding and writing are one transaction, so two workers never grant what excludes each other.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from davfusion.database import Sparse, below
from davfusion.stores import paths

SCHEMA = """
CREATE TABLE IF NOT EXISTS lock (
    token TEXT PRIMARY KEY,
    root TEXT NOT NULL,
    is_exclusive INTEGER NOT NULL,
    is_deep INTEGER NOT NULL,
    owner TEXT NOT NULL,
    principal TEXT NOT NULL,
    expires REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS lock_root ON lock (root);
"""
Query = Callable[[str, Sequence[Any]], Iterable[Any]]
_COLUMNS = "token, root, is_exclusive, is_deep, owner, principal, expires"


@dataclass(frozen=True)
class Lock:
    """A write lock; `owner` is the XML that the client gave, `expires` is in epoch seconds."""

    token: str
    root: str
    is_exclusive: bool
    is_deep: bool
    owner: str
    principal: str
    expires: float

    @classmethod
    def from_row(cls, row: tuple[str, str, int, int, str, str, float]) -> "Lock":
        token, root, is_exclusive, is_deep, owner, principal, expires = row
        return cls(token, root, bool(is_exclusive), bool(is_deep), owner, principal, expires)


class LockedError(Exception):
    """Locks are in the way; `roots` are their paths."""

    def __init__(self, roots: Iterable[str]) -> None:
        super().__init__("locked")
        self.roots = tuple(sorted(set(roots)))


class LockTable:
    """Grants, finds and ends locks. Paths are store paths."""

    def __init__(self, database: Sparse, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def acquire(
        self,
        root: str,
        *,
        is_exclusive: bool,
        is_deep: bool,
        owner: str,
        principal: str,
        seconds: float,
    ) -> Lock:
        """Grant a lock for that many seconds; LockedError where another one excludes it."""
        now = self._clock()
        lock = Lock(
            f"opaquelocktoken:{uuid.uuid4()}",
            root,
            is_exclusive,
            is_deep,
            owner,
            principal,
            now + seconds,
        )
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM lock WHERE expires <= ?", (now,))
            others = _covering(connection.execute, root, now)
            if is_deep:
                others += _below(connection.execute, root, now)
            in_the_way = [o.root for o in others if is_exclusive or o.is_exclusive]
            if in_the_way:
                raise LockedError(in_the_way)
            connection.execute(
                f"INSERT INTO lock ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (lock.token, root, is_exclusive, is_deep, owner, principal, lock.expires),
            )
        return lock

    def refresh(self, path: str, tokens: Collection[str], principal: str, seconds: float) -> Lock:
        """Give the lock on `path` that the principal holds by one of the tokens a new time.

        Raises LookupError when there is none.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            for lock in _covering(connection.execute, path, now):
                if lock.token in tokens and lock.principal == principal:
                    expires = now + seconds
                    connection.execute(
                        "UPDATE lock SET expires = ? WHERE token = ?", (expires, lock.token)
                    )
                    return Lock(**{**lock.__dict__, "expires": expires})
        raise LookupError(path)

    def release(self, path: str, token: str, principal: str) -> bool:
        """End a lock that covers `path`; False when there is none of that token.

        Raises PermissionError for another principal's lock.
        """
        with self._database.transaction() as connection:
            for lock in _covering(connection.execute, path, self._clock()):
                if lock.token != token:
                    continue
                if lock.principal != principal:
                    raise PermissionError(token)
                connection.execute("DELETE FROM lock WHERE token = ?", (token,))
                return True
        return False

    def covering(self, path: str) -> list[Lock]:
        """The locks on `path` itself, and the deep ones on the directories above it."""
        return _covering(self._database.rows, path, self._clock())

    def below(self, path: str) -> list[Lock]:
        """The locks on what lies below `path`."""
        return _below(self._database.rows, path, self._clock())

    def check_write(
        self, path: str, tokens: Collection[str], principal: str, *, tree: bool, membership: bool
    ) -> None:
        """Raise LockedError unless the tokens open each resource that a change of `path` changes.

        `tree`: everything below changes too. `membership`: `path` appears in or vanishes from its
        directory, which a lock on that directory protects whatever its depth (section 7.4).
        """
        now = self._clock()
        query = self._database.rows
        inside = _below(query, path, now) if tree else []
        locks = defaultdict[str, list[Lock]](list)
        for lock in _at_and_above(query, path, now) + inside:
            locks[lock.root].append(lock)
        changed = {path, *(lock.root for lock in inside), *([paths.parent(path)] * membership)}
        closed = [root for c in changed for root in _closed(_among(locks, c), tokens, principal)]
        if closed:
            raise LockedError(closed)

    def remove_tree(self, path: str) -> None:
        """End the locks on `path` and below: what they locked is gone."""
        self._remove("root = ? OR (root >= ? AND root < ?)", (path, *below(path)))

    def remove_below(self, path: str) -> None:
        """End the locks on what lay below `path`: it has been replaced."""
        self._remove("root >= ? AND root < ?", below(path))

    def _remove(self, where: str, values: Sequence[str]) -> None:
        if not self._database.rows(f"SELECT 1 FROM lock WHERE {where} LIMIT 1", values):  # noqa: S608
            return
        with self._database.transaction() as connection:
            connection.execute(f"DELETE FROM lock WHERE {where}", values)  # noqa: S608


def _covering(query: Query, path: str, now: float) -> list[Lock]:
    return [lock for lock in _at_and_above(query, path, now) if lock.root == path or lock.is_deep]


def _at_and_above(query: Query, path: str, now: float) -> list[Lock]:
    above = list(paths.ancestors(path))
    marks = ", ".join("?" * (len(above) + 1))
    rows = query(
        f"SELECT {_COLUMNS} FROM lock WHERE root IN ({marks}) AND expires > ?",  # noqa: S608
        (path, *above, now),
    )
    return list(map(Lock.from_row, rows))


def _below(query: Query, path: str, now: float) -> list[Lock]:
    rows = query(
        f"SELECT {_COLUMNS} FROM lock WHERE root > ? AND root >= ? AND root < ?"  # noqa: S608
        " AND expires > ?",
        (path, *below(path), now),
    )
    return [Lock.from_row(row) for row in rows]


def _among(locks: Mapping[str, list[Lock]], path: str) -> list[Lock]:
    """Of `locks` by their roots: those on `path`, and the deep ones above it."""
    above = (lock for root in paths.ancestors(path) for lock in locks.get(root, ()) if lock.is_deep)
    return [*locks.get(path, ()), *above]


def _closed(locks: list[Lock], tokens: Collection[str], principal: str) -> set[str]:
    """Roots of the locks on a resource, which one token opens: several of them are all shared."""
    is_opened = any(lock.token in tokens and lock.principal == principal for lock in locks)
    return set() if is_opened else {lock.root for lock in locks}
