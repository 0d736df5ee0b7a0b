"""Dead properties: what clients attach to files and folders (RFC 4918 section 4).

A value is the property's XML element as text, with every namespace it uses declared in it.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from davfusion.database import Sparse, below
from davfusion.stores import paths

SCHEMA = """
CREATE TABLE IF NOT EXISTS property (
    directory TEXT NOT NULL,
    name TEXT NOT NULL,
    property TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (directory, name, property)
) WITHOUT ROWID;
"""
Query = Callable[[str, Sequence[Any]], Iterable[Any]]
_TREE = "((directory = ? AND name = ?) OR directory = ? OR (directory >= ? AND directory < ?))"
_HERE = "directory = ? AND name = ?"


class DeadProperties:
    """Property names are in Clark notation, `{namespace}name`; paths are store paths."""

    def __init__(self, database: Sparse) -> None:
        self._database = database

    def of(self, path: str) -> dict[str, str]:
        """Property name -> element of one file or folder."""
        return dict(
            self._database.rows(
                f"SELECT property, value FROM property WHERE {_HERE}",  # noqa: S608
                _place(path),
            )
        )

    def of_members(self, directory: str) -> dict[str, dict[str, str]]:
        """Member name -> its properties, for the members of `directory` that have any."""
        found: dict[str, dict[str, str]] = defaultdict(dict)
        for name, prop, value in self._database.rows(
            "SELECT name, property, value FROM property WHERE directory = ? AND name != ''",
            (directory,),
        ):
            found[name][prop] = value
        return found

    def change(self, path: str, values: Mapping[str, str], removed: Iterable[str] = ()) -> None:
        """Set and remove properties of one file or folder, all or none."""
        place = _place(path)
        with self._database.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO property VALUES (?, ?, ?, ?)",
                [(*place, prop, value) for prop, value in values.items()],
            )
            connection.executemany(
                f"DELETE FROM property WHERE {_HERE} AND property = ?",  # noqa: S608
                [(*place, prop) for prop in removed],
            )

    def remove_tree(self, path: str) -> None:
        """Forget the properties of `path` and of everything below it."""
        if not self._has_any(path):
            return
        with self._database.transaction() as connection:
            _remove(connection, path)

    def copy(self, src: str, dst: str, *, tree: bool = True, failed: Collection[str] = ()) -> None:
        """Give `dst` the properties of `src`; what `dst` had before is gone.

        What lies at or below the paths `failed` did not come along, nor do its properties.
        """
        if not (self._has_any(src) or self._has_any(dst)):
            return
        with self._database.transaction() as connection:
            _copy(connection, src, dst, tree=tree, failed=failed)

    def move_tree(self, src: str, dst: str) -> None:
        """As copy, and `src` has none any more."""
        if not (self._has_any(src) or self._has_any(dst)):
            return
        with self._database.transaction() as connection:
            _copy(connection, src, dst, tree=True, failed=())
            _remove(connection, src)

    def copy_to(
        self,
        target: "DeadProperties",
        src: str,
        dst: str,
        *,
        tree: bool = True,
        failed: Collection[str] = (),
    ) -> None:
        """As copy, to the `dst` of another share."""
        copied = _copied(self._database.rows, src, dst, tree=tree, failed=failed)
        with target._database.transaction() as connection:
            _replace(connection, dst, copied)

    def _has_any(self, path: str) -> bool:
        """Whether there are any of `path` or below; most trees have none, and need no commit."""
        sql = f"SELECT 1 FROM property WHERE {_TREE} LIMIT 1"  # noqa: S608
        return bool(self._database.rows(sql, _tree(path)))


def _place(path: str) -> tuple[str, str]:
    return paths.parent(path), paths.name(path)


def _tree(path: str) -> tuple[str, ...]:
    """The values of _TREE."""
    return (*_place(path), path, *below(path))


def _remove(connection: sqlite3.Connection, path: str) -> None:
    connection.execute(f"DELETE FROM property WHERE {_TREE}", _tree(path))  # noqa: S608


def _copy(
    connection: sqlite3.Connection, src: str, dst: str, *, tree: bool, failed: Collection[str]
) -> None:
    _replace(connection, dst, _copied(connection.execute, src, dst, tree=tree, failed=failed))


def _copied(
    query: Query, src: str, dst: str, *, tree: bool, failed: Collection[str]
) -> list[tuple[str, ...]]:
    """The rows of `src` as those of `dst`."""
    where, values = (_TREE, _tree(src)) if tree else (_HERE, _place(src))
    rows = query(
        f"SELECT directory, name, property, value FROM property WHERE {where}",  # noqa: S608
        values,
    )
    return [
        (*_place(paths.rebase(path, src, dst)), prop, value)
        for directory, name, prop, value in rows
        if not _is_among(path := paths.join(directory, name), failed)
    ]


def _replace(connection: sqlite3.Connection, dst: str, rows: list[tuple[str, ...]]) -> None:
    _remove(connection, dst)
    connection.executemany("INSERT OR REPLACE INTO property VALUES (?, ?, ?, ?)", rows)


def _is_among(path: str, tops: Collection[str]) -> bool:
    return any(path == top or paths.is_below(path, top) for top in tops)
