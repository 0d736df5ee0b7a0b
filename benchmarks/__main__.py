"""python -m benchmarks: run the races, print the tables, and write docs/performance.md."""

import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import about, races, report, tables
from benchmarks.contenders import other_servers
from benchmarks.growth.tables import growth
from benchmarks.results import Results

_PROGRAMS = ("curl", "wrk")


@click.command()
@click.option("--only", default="", metavar="NAME,...", help="Workloads, as list, s3/* or put-*.")
@click.option("--reps", default=3, show_default=True, type=click.IntRange(1), help="Turns.")
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Of the files' number and size.",
)
@click.option(
    "--server",
    "servers",
    multiple=True,
    metavar="NAME",
    help="Run davfusion on this HTTP server, too.  [default: each that is installed]",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write all values there."
)
@click.option(
    "--from-json",
    type=click.Path(path_type=Path, exists=True),
    help="Run nothing; show what is there.",
)
@click.option(
    "--docs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Write the tables and charts into performance.md of that folder.",
)
def main(*, json_file: Path | None, from_json: Path | None, docs: Path | None, **what: Any) -> None:
    """Race davfusion against rclone on one S3 store, and against stock wsgidav on a local folder.

    Progress goes to stderr. Exits with 1 if a server answered or stored something wrong.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers end with us
    results = Results.read(from_json) if from_json else _run(**what)
    if json_file:
        results.write(json_file)
    if docs:
        report.write(results, docs)
    _show(results)
    sys.exit(bool(results.wrong))


def _run(only: str, reps: int, scale: float, servers: tuple[str, ...]) -> Results:
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise click.ClickException(f"install {' and '.join(missing)} (apt-get install curl wrk)")
    offered = other_servers()
    for name in servers:
        if name not in offered:
            raise click.UsageError(f"davfusion does not offer --server {name}, or it is missing")
    patterns = [pattern for pattern in only.split(",") if pattern]
    chosen = [race.only(patterns) for race in races.all_races(servers or offered)]
    if not any(race.workloads for race in chosen):
        raise click.UsageError(f"no workload is called {only}")
    results = Results(about.about(chosen, reps, scale))
    start = time.monotonic()
    races.run(chosen, results, reps, scale)
    results.about["minutes"] = round((time.monotonic() - start) / 60, 1)
    return results


def _show(results: Results) -> None:
    for race in results.races:
        click.echo(f"{tables.versus(results, race)}\n\n{tables.usage(results, race)}\n")
    click.echo(growth(results))
    for wrong in results.wrong:
        click.echo(f"WRONG: {wrong}", err=True)


if __name__ == "__main__":
    main()
