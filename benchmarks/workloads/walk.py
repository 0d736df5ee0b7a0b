"""A client walks a tree of 300 folders with 10 files each, folder by folder, and once more."""

import time

from benchmarks.client import Client
from benchmarks.origins import Origin
from benchmarks.site import Figures, Site, scaled

_FOLDERS = 300
_INNER = 20
_FILES = 10


def _tree(scale: float) -> dict[str, list[str]]:
    """The folders of each outer folder."""
    tree: dict[str, list[str]] = {}
    for i in range(scaled(_FOLDERS, scale)):
        tree.setdefault(f"d{i // _INNER:02d}", []).append(f"e{i % _INNER:02d}")
    return tree


def seed(origin: Origin, scale: float) -> None:
    origin.put_many(
        {
            f"tree/{outer}/{inner}/f{i}.txt": b"y" * 10
            for outer, folders in _tree(scale).items()
            for inner in folders
            for i in range(_FILES)
        }
    )


def _walk(client: Client, tree: dict[str, list[str]]) -> float:
    start = time.perf_counter()
    client.list("/tree/", set(tree))
    for outer, folders in tree.items():
        client.list(f"/tree/{outer}/", set(folders))
        for inner in folders:
            client.list(f"/tree/{outer}/{inner}/", {f"f{i}.txt" for i in range(_FILES)})
    return time.perf_counter() - start


def run(site: Site) -> Figures:
    tree = _tree(site.scale)
    with site.client() as client:
        return {"walk cold s": _walk(client, tree), "walk warm s": _walk(client, tree)}
