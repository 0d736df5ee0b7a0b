"""Looks for blocks that are not as they were stored, and for files that no block has.

It works beside a running server: what comes and goes meanwhile is not reported.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from davfusion.cache.block_folder import CLAIM, INDEX, BlockFolder, Views

_SETTLED: Final = 60.0
"""A file of so many seconds is not about to get its row."""
_READS: Final = 2
"""A block that is replaced at this moment reads well the second time."""


@dataclass(frozen=True)
class Checked:
    """How many blocks were read, the keys of damaged ones, and files that no block has.

    An index that could not be used has been thrown away with all blocks, and stands among the
    damaged as its file's name.
    """

    blocks: int = 0
    damaged: tuple[str, ...] = ()
    orphans: tuple[Path, ...] = ()


def check_blocks(folder: BlockFolder, *, repair: bool) -> Checked:
    """All of it; `repair` removes the damaged blocks and the orphans."""
    keys = folder.run(_keys)
    if keys is None:
        return Checked(damaged=(INDEX,))
    damaged = tuple(key for key in keys if folder.run(partial(_is_damaged, key)))
    if repair:
        for key in damaged:
            folder.run(partial(_delete, key))
    return Checked(len(keys), damaged, find_orphans(folder, repair=repair))


def find_orphans(folder: BlockFolder, *, repair: bool) -> tuple[Path, ...]:
    """Files without a row: a process was killed between the file and the row.

    They count for nothing in the limit, so a server looks for them once it has started.
    """
    orphans = tuple(folder.run(_orphans) or ())
    if repair:
        for path in orphans:
            path.unlink(missing_ok=True)
    return orphans


def _keys(views: Views) -> list[str]:
    # A claim is a number, not a block.
    return [key for key in views.plain if isinstance(key, str) and not key.endswith(CLAIM)]


def _is_damaged(key: str, views: Views) -> bool:
    return all(views.read(key) is None for _ in range(_READS)) and key in views.plain


def _delete(key: str, views: Views) -> None:
    views.plain.delete(key)


def _orphans(views: Views) -> list[Path]:
    settled = time.time() - _SETTLED
    # First the files, then the rows: a file that gets its row in between is known.
    files = [path for path in _files(views.path) if _modified(path) < settled]
    uri = (views.path / INDEX).absolute().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
        known = {Path(name).name for (name,) in rows}
    return [path for path in files if path.name not in known]


def _files(folder: Path) -> Iterator[Path]:
    # Not by glob, which fails when a folder goes meanwhile.
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if name.endswith(".val"))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
