"""A client opens a folder of 5,000 files, and looks again."""

import statistics

from benchmarks.origins import Origin
from benchmarks.site import Figures, Site, scaled

FILES = 5_000
_LOOKS = 5


def names(count: int) -> set[str]:
    return {f"file {i:05d} ü.txt" for i in range(count)}


def seed(origin: Origin, scale: float, files: int = FILES) -> None:
    origin.put_many({f"flat/{name}": b"x" * (i % 50) for i, name in _numbered(scale, files)})


def _numbered(scale: float, files: int) -> list[tuple[int, str]]:
    return list(enumerate(sorted(names(scaled(files, scale)))))


def run(site: Site, files: int = FILES) -> Figures:
    there = names(site.count(files))
    with site.client() as client:
        cold = client.list("/flat/", there)
        warm = [client.list("/flat/", there) for _ in range(_LOOKS)]
    return {"list cold s": cold, "list warm s": statistics.median(warm)}
