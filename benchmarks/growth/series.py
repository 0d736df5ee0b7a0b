"""Which figures make a line, from little to much."""

from dataclasses import dataclass
from typing import Final

ENTRIES: Final = (1_000, 10_000, 100_000)
PENDING: Final = (1_000, 10_000, 100_000)
_CLIENTS: Final = (1, 8, 64)


@dataclass(frozen=True)
class Point:
    """One value of a line: `amount` of what grows, and where the figure is found."""

    amount: int
    workload: str
    figure: str


@dataclass(frozen=True)
class Series:
    """A figure that grows with something."""

    title: str
    unit: str
    grows: str
    """What there is more and more of."""
    points: tuple[Point, ...]
    chart: str
    """Series of one chart stand side by side."""

    @property
    def costs(self) -> bool:
        """Whether less of it is better."""
        return self.unit != "/s"


def _entries(title: str, unit: str) -> Series:
    points = tuple(Point(n, f"list-{n}", f"{title} {unit}") for n in ENTRIES)
    return Series(title, unit, "entries of a folder", points, "growth-entries")


def _clients(title: str, figures: tuple[tuple[str, str], ...]) -> Series:
    points = tuple(Point(n, *place) for n, place in zip(_CLIENTS, figures, strict=True))
    return Series(title, "/s", "clients", points, "growth-clients")


def _pending(title: str, unit: str) -> Series:
    points = tuple(Point(n, f"journal-{n}", f"{title} {unit}") for n in PENDING)
    return Series(title, unit, "pending changes", points, "growth-pending")


SERIES: Final = (
    _entries("list cold", "s"),
    _entries("list warm", "s"),
    _entries("memory", "MiB"),
    _clients("stat", (("stat-1", "stat 1 /s"), ("hot", "stat /s"), ("stat-64", "stat 64 /s"))),
    _clients("put small", tuple((f"put-{n}", f"put {n} clients /s") for n in _CLIENTS)),
    _pending("start", "s"),
    _pending("put", "ms"),
    _pending("status", "s"),
    _pending("memory", "MiB"),
)
