"""The tables of a result, as Markdown."""

from collections.abc import Iterator

from benchmarks import targets
from benchmarks.contenders import OURS
from benchmarks.races import ON_S3_RACE, PEERS
from benchmarks.results import USAGE, Results, Spread, ratio
from benchmarks.workloads import GROWTH

_MISSED = "✗ missed"


def basic(results: Results, race: str) -> list[str]:
    """The workloads that are not about growth, which has tables of its own."""
    growth_ = {workload.name for workload in GROWTH}
    return [name for name in results.workloads(race) if name not in growth_]


def versus(results: Results, race: str) -> str:
    """Every figure of a race beside that of the peer."""
    peer = PEERS[race]
    lines = [
        f"| workload | figure | davfusion | {peer} | ratio | target | |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for workload in basic(results, race):
        for figure, values in results.figures(race, workload):
            if figure not in USAGE and peer in values:
                lines += _rows(race, workload, figure, values)
    return "\n".join(lines)


def _rows(race: str, workload: str, figure: str, values: dict[str, Spread]) -> Iterator[str]:
    theirs = values[PEERS[race]]
    for name, ours in values.items():
        if name == PEERS[race]:
            continue
        times = ratio(figure, ours.median, theirs.median)
        label = figure if name == OURS else f"{figure}, {name.removeprefix(OURS).strip()}"
        target, missed = "", False
        if race == ON_S3_RACE:
            target, missed = _target(workload, figure, name, ours.median, times)
        mark = _MISSED if missed else ""
        yield f"| {workload} | {label} | {ours} | {theirs} | {times:.2f} | {target} | {mark} |"


def _target(
    workload: str, figure: str, contender: str, value: float, times: float
) -> tuple[str, bool]:
    """What is to be reached, as text, and whether it was not."""
    least, most = (
        targets.least_ratio(workload, figure, contender),
        targets.limit(workload, figure),
    )
    if least is not None:
        return f"≥ {least:g}", times < least
    if most is not None:
        return f"value ≤ {most:g}", value > most
    return "", False


def usage(results: Results, race: str) -> str:
    """Memory and processor time of every workload."""
    peer = PEERS[race]
    lines = [
        f"| workload | memory MiB: davfusion | {peer} | target | | cpu s: davfusion | {peer} |",
        "|---|--:|--:|--:|---|--:|--:|",
    ]
    for workload in results.workloads(race):
        figures = dict(results.figures(race, workload))
        memory, cpu = figures["memory MiB"], figures["cpu s"]
        for name, ours in memory.items():
            if name != peer:
                label = (
                    workload if name == OURS else f"{workload}, {name.removeprefix(OURS).strip()}"
                )
                mark = _MISSED if ours.median > targets.MEMORY else ""
                theirs = [str(v.get(peer, "")) for v in (memory, cpu)]
                lines.append(
                    f"| {label} | {ours} | {theirs[0]} | ≤ {targets.MEMORY:g} | {mark} "
                    f"| {cpu[name]} | {theirs[1]} |"
                )
    return "\n".join(lines)
