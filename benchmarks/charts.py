"""The charts of a result, as SVG on a ground of their own: legible on light and dark pages."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks import tables, targets
from benchmarks.contenders import OURS
from benchmarks.growth.series import SERIES, Series
from benchmarks.growth.tables import contenders, line
from benchmarks.races import ON_FOLDER_RACE, ON_S3_RACE, PEERS
from benchmarks.results import USAGE, Results, ratio

_INK: Final = "#1f2933"
_FAINT: Final = "#c8ced6"
_COLORS: Final = ("#0b6e99", "#c2570c", "#5b8c2a")
_BAD: Final = "#b3261e"
_STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "davfusion",  # the same result gives the same file
    "svg.fonttype": "none",
    "figure.facecolor": "#fbfbf9",
    "axes.facecolor": "#fbfbf9",
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 9,
    "legend.frameon": False,
}
_PLAIN: Final = FuncFormatter(lambda value, _: f"{value:,.6g}")


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Write what there are values for; returns file name (without .svg) -> title."""
    folder.mkdir(exist_ok=True)
    charts: dict[str, tuple[str, Callable[[Results], Figure | None]]] = {
        "rclone": ("How many times as good as rclone", lambda r: _ratios(r, ON_S3_RACE)),
        "memory": ("Memory of all processes in MiB, on S3", _memory),
        "growth-entries": ("More entries in one folder", lambda r: _growth(r, "growth-entries")),
        "growth-clients": ("More clients at a time", lambda r: _growth(r, "growth-clients")),
        "growth-pending": ("More pending changes", lambda r: _growth(r, "growth-pending")),
        "wsgidav": ("How many times as good as wsgidav", lambda r: _ratios(r, ON_FOLDER_RACE)),
    }
    drawn = {}
    with mpl.rc_context(_STYLE):
        for name, (title, chart) in charts.items():
            file = folder / f"{name}.svg"
            file.unlink(missing_ok=True)
            if (figure := chart(results)) is not None:
                figure.suptitle(title)
                figure.savefig(file, metadata={"Date": None})
                drawn[name] = title
    return drawn


def _ratios(results: Results, race: str) -> Figure | None:
    """A bar for each figure, from 1 to the ratio, and the target as a line across it."""
    peer = PEERS[race]
    bars = list(_bars(results, race))
    if not bars:
        return None
    figure, axes = _horizontal(len(bars))
    for place, (_, times, target) in enumerate(bars):
        is_missed = target is not None and times < target
        axes.barh(place, times - 1, left=1, color=_BAD if is_missed else _COLORS[0], height=0.65)
        if target is not None:
            axes.plot([target, target], [place - 0.45, place + 0.45], color=_INK, linewidth=1.5)
        offset, side = (4, "left") if times >= 1 else (-4, "right")
        axes.annotate(
            f"{times:.3g}",
            (times, place),
            (offset, 0),
            textcoords="offset points",
            ha=side,
            va="center",
        )
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.margins(x=0.12, y=0.01)
    axes.axvline(1, color=_INK, linewidth=1)
    axes.set_xlabel(f"davfusion : {peer} (1 = equal, to the right davfusion is better; log scale)")
    if race == ON_S3_RACE:
        axes.plot([], [], color=_INK, linewidth=1.5, label="target")
        axes.barh([0], [0], left=1, color=_BAD, label="below the target")
        axes.legend(loc="lower right")
    return figure


def _bars(results: Results, race: str) -> Iterator[tuple[str, float, float | None]]:
    """Label, ratio and target of every figure."""
    peer = PEERS[race]
    for workload in tables.basic(results, race):
        for name_of_figure, values in results.figures(race, workload):
            if name_of_figure in USAGE or peer not in values:
                continue
            for name, ours in values.items():
                if name == peer:
                    continue
                times = ratio(name_of_figure, ours.median, values[peer].median)
                on = "" if name == OURS else f", {name.removeprefix(OURS).strip()}"
                least = targets.least_ratio(workload, name_of_figure, name)
                is_s3 = race == ON_S3_RACE
                yield f"{workload}: {name_of_figure}{on}", times, least if is_s3 else None


def _horizontal(rows: int) -> tuple[Figure, Axes]:
    """A figure for that many rows, the first one at the top."""
    figure = Figure(figsize=(8.5, 1.4 + 0.24 * rows), layout="constrained")
    axes = figure.subplots()
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure, axes


def _memory(results: Results) -> Figure | None:
    """Bars of every contender side by side, and the limit."""
    workloads = results.workloads(ON_S3_RACE)
    if not workloads:
        return None
    names = (OURS, PEERS[ON_S3_RACE])
    figure, axes = _horizontal(2 * len(workloads))
    for i, name in enumerate(names):
        spreads = [results.spread(ON_S3_RACE, w, "memory MiB", name) for w in workloads]
        places = [place + 0.4 * i - 0.2 for place in range(len(workloads))]
        widths = [spread.median if spread else 0 for spread in spreads]
        axes.barh(places, widths, height=0.38, color=_COLORS[i], label=name)
    axes.axvline(targets.MEMORY, color=_INK, linewidth=1.5, label="target of davfusion")
    axes.set_yticks(range(len(workloads)), workloads)
    axes.set_xlabel("MiB resident after the workload")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _growth(results: Results, chart: str) -> Figure | None:
    """The series of a chart side by side, on logarithmic axes."""
    lines = [
        (
            series,
            {name: line(results, series, name) for name in contenders(results, series)},
        )
        for series in SERIES
        if series.chart == chart
    ]
    if not any(values for _, by_name in lines for values in by_name.values()):
        return None
    figure = Figure(figsize=(2.9 * len(lines), 3.4), layout="constrained")
    handles = {}
    for axes, (series, by_name) in zip(figure.subplots(1, len(lines)), lines, strict=True):
        for name, values in by_name.items():
            color = _color(name)
            handles[name] = axes.plot(*zip(*values.items(), strict=True), "o-", color=color)[0]
        _label(axes, series)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
    return figure


def _color(name: str) -> str:
    """The same in every chart."""
    known = (OURS, PEERS[ON_S3_RACE])
    return _COLORS[known.index(name) if name in known else -1]


def _label(axes: Axes, series: Series) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"{series.title}, {series.unit}")
    axes.set_xlabel(series.grows)
    amounts = [point.amount for point in series.points]
    axes.set_xticks(amounts, [f"{n:,}" for n in amounts])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_PLAIN)
