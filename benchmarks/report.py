"""docs/performance.md: the parts between markers are written anew, all other text stays."""

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks import charts, tables
from benchmarks.growth.tables import growth
from benchmarks.races import ON_FOLDER_RACE, ON_S3_RACE
from benchmarks.results import Results

PAGE = "performance.md"
CHARTS = "performance"


class ReportError(Exception):
    """The page is not as it should be; the text names what is missing."""


def write(results: Results, docs: Path) -> None:
    """Write the page's generated parts and the charts. The page must be there, with its markers."""
    drawn = charts.draw(results, docs / CHARTS)
    page = docs / PAGE
    page.write_text(_filled(page.read_text(), _parts(results, drawn)))


def _parts(results: Results, drawn: Mapping[str, str]) -> dict[str, str]:
    """Marker -> what comes there. `drawn` has the title of each chart that there is."""
    pictures = {name: f"![{title}]({CHARTS}/{name}.svg)" for name, title in drawn.items()}
    drawn_growth = [pictures[name] for name in pictures if name.startswith("growth")]
    return {
        "machine": "\n".join([*_machine(results), *_wrong(results)]),
        "rclone": _joined(pictures.get("rclone"), tables.versus(results, ON_S3_RACE)),
        "usage": _joined(pictures.get("memory"), tables.usage(results, ON_S3_RACE)),
        "wsgidav": _joined(
            pictures.get("wsgidav"),
            tables.versus(results, ON_FOLDER_RACE),
            tables.usage(results, ON_FOLDER_RACE),
        ),
        "growth": _joined(*drawn_growth, growth(results)),
        "commands": _commands(results),
    }


def _joined(*parts: str | None) -> str:
    return "\n\n".join(part for part in parts if part)


def _machine(results: Results) -> list[str]:
    about = results.about
    rows = {
        "date": about["date"],
        **about["machine"],
        **about["versions"],
        "turns": f"{about['reps']} of each contender, at scale {about['scale']:g}",
        "took": f"{about['minutes']:g} minutes",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _wrong(results: Results) -> list[str]:
    if not results.wrong:
        return ["", "No turn went wrong."]
    return [
        "",
        f"**{len(results.wrong)} turns went wrong:**",
        "",
        *(f"- {w}" for w in results.wrong),
    ]


def _commands(results: Results) -> str:
    about = results.about
    lines = [f"python -m benchmarks {about['arguments']}".rstrip(), ""]
    for name, command in about["commands"].items():
        lines += [f"# {name}", command]
    return "\n".join(["```sh", *lines, "```"])


def _filled(page: str, parts: Mapping[str, str]) -> str:
    """`page` with each part between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        page, count = between.subn(lambda _: f"{begin}\n\n{part}\n\n{end}", page)  # noqa: B023
        if count != 1:
            raise ReportError(f"{PAGE} has {count} places for {begin} ... {end}, not one")
    return page
