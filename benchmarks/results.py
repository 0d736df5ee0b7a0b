"""What a run has found: values by race, workload, figure and contender, as JSON on disk."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.site import Figures

USAGE = ("cpu s", "memory MiB")
"""The figures that every workload has."""


@dataclass(frozen=True)
class Spread:
    """The values of several turns."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = digits(min(self.values)), digits(max(self.values))
        spread = f" ({low} to {high})" if low != high else ""
        return f"{digits(self.median)}{spread}"


def digits(value: float) -> str:
    """Three of them, or all of the integer."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def ratio(figure: str, ours: float, theirs: float) -> float:
    """How many times as good ours is."""
    return ours / theirs if figure.endswith("/s") else theirs / ours


@dataclass
class Results:
    """All of a run."""

    about: dict[str, Any]
    """The machine, versions and commands; see about.py."""
    races: dict[str, dict[str, dict[str, dict[str, list[float]]]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """The turns that went wrong, and why."""

    def add(self, race: str, workload: str, contender: str, figures: Figures) -> None:
        of_workload = self.races.setdefault(race, {}).setdefault(workload, {})
        for figure, value in figures.items():
            of_workload.setdefault(figure, {}).setdefault(contender, []).append(value)

    def workloads(self, race: str) -> list[str]:
        return list(self.races.get(race, {}))

    def figures(self, race: str, workload: str) -> Iterator[tuple[str, dict[str, Spread]]]:
        """Each figure with the values of each contender."""
        for figure, values in self.races[race][workload].items():
            yield figure, {name: Spread(tuple(all_)) for name, all_ in values.items()}

    def spread(self, race: str, workload: str, figure: str, contender: str) -> Spread | None:
        values = self.races.get(race, {}).get(workload, {}).get(figure, {}).get(contender)
        return Spread(tuple(values)) if values else None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Results":
        return cls(**json.loads(path.read_text()))
