"""The tables of what grows, as Markdown."""

from collections.abc import Iterator
from typing import Final

from benchmarks.contenders import OURS
from benchmarks.growth.series import SERIES, Series
from benchmarks.races import ON_S3_RACE, PEERS
from benchmarks.results import Results, digits, ratio

_MORE_THAN_LINEAR: Final = 1.2
"""A cost that grew by more than this times what it depends on; less may be chance."""


def growth(results: Results) -> str:
    """One table for each thing that grows."""
    things = dict.fromkeys(series.grows for series in SERIES)
    return "\n\n".join(filter(None, (_table(results, thing) for thing in things)))


def _table(results: Results, grows: str) -> str:
    """Empty where nothing has been measured."""
    series = [one for one in SERIES if one.grows == grows]
    rows = [row for one in series for row in _rows(results, one)]
    amounts = [f"{point.amount:,}" for point in series[0].points]
    head = [
        f"| {grows} | | {' | '.join(amounts)} | last step | |",
        f"|---|---|{'--:|' * len(amounts)}--:|---|",
    ]
    return "\n".join([*head, *rows] if rows else [])


def contenders(results: Results, series: Series) -> list[str]:
    """Who has a value at one of its points."""
    found: dict[str, None] = {}
    for point in series.points:
        of_workload = results.races.get(ON_S3_RACE, {}).get(point.workload, {})
        found.update(dict.fromkeys(of_workload.get(point.figure, {})))
    return list(found)


def line(results: Results, series: Series, contender: str) -> dict[int, float]:
    """Amount -> median of a contender, for what has been measured."""
    spreads = {
        point.amount: results.spread(ON_S3_RACE, point.workload, point.figure, contender)
        for point in series.points
    }
    return {amount: spread.median for amount, spread in spreads.items() if spread}


def _rows(results: Results, series: Series) -> Iterator[str]:
    """One for each contender, and one for the ratio."""
    lines = {name: line(results, series, name) for name in contenders(results, series)}
    label = f"{series.title} {series.unit}"
    for name, values in lines.items():
        cells = _cells(series, {n: digits(value) for n, value in values.items()})
        yield f"| {label} | {name} | {cells} | {_last_step(series, values, name)} |"
    ours, theirs = (lines.get(name, {}) for name in (OURS, PEERS[ON_S3_RACE]))
    both = sorted(ours.keys() & theirs.keys())
    if both:
        ratios = {n: f"{ratio(series.unit, ours[n], theirs[n]):.2f}" for n in both}
        yield f"| {label} | *ratio* | {_cells(series, ratios)} | | |"


def _cells(series: Series, shown: dict[int, str]) -> str:
    return " | ".join(shown.get(point.amount, "") for point in series.points)


def _last_step(series: Series, values: dict[int, float], name: str) -> str:
    """By how much the figure is larger at the last amount than at the one before, and a mark."""
    before, last = (point.amount for point in series.points[-2:])
    if not {before, last} <= values.keys():
        return " | "
    times = values[last] / values[before]
    is_ours = series.costs and name != PEERS[ON_S3_RACE]
    is_defect = is_ours and times > last / before * _MORE_THAN_LINEAR
    return f"{times:.2g} times | {'✗ worse than linear' if is_defect else ''}"
