"""Emptying a cache of all that the store has too, beside a running server or without one."""

from pathlib import Path

from davfusion.cache.block_cache import BlockCache
from davfusion.cache.folder import CacheFolder


def clear_cache(folder: CacheFolder) -> int:
    """Remove blocks and listings; returns the bytes that became free. OSError.

    What has not been sent, the journal, the locks and the properties stay.
    """
    before = _size(folder.path)
    if (folder.path / "blocks").exists():
        blocks = BlockCache(folder.path / "blocks", 0)
        blocks.clear()
        blocks.close()
    if (folder.path / "listings.sqlite").exists():
        folder.listings.clear()
    return max(0, before - _size(folder.path))


def _size(folder: Path) -> int:
    """Of what is removed, in bytes."""
    files = (file for name in ("blocks", "listings.sqlite*") for file in folder.glob(name))
    return sum(map(_disk_size, files))


def _disk_size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in inside:
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # it goes while it is looked at
            continue
    return total
