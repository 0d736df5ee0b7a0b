"""The benchmarks run, and their report is written; how quick anything is does not matter here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import ReportError
from benchmarks.results import Results
from tests.live.serving import program

REPOSITORY = Path(__file__).parent.parent
ABOUT = {
    "date": "2026-01-01",
    "arguments": "",
    "reps": 1,
    "scale": 1.0,
    "minutes": 1,
    "machine": {},
    "versions": {},
    "commands": {},
}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A copy of the page."""
    shutil.copy(REPOSITORY / "docs" / "performance.md", tmp_path)
    return tmp_path


def page(docs: Path) -> str:
    return (docs / "performance.md").read_text()


def benchmarks(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY)


@pytest.mark.slow
def test_a_race_is_run_and_reported(docs: Path) -> None:
    program("curl")
    program("wrk")
    values = docs / "values.json"
    ran = benchmarks(
        *("--only", "start,put-8,folder/hot", "--reps", "1", "--scale", "0.02"),
        *("--json", str(values), "--docs", str(docs)),
    )
    assert ran.returncode == 0, ran.stderr
    of_put = Results.read(values).races["s3"]["put-8"]
    assert set(of_put) == {"put 8 clients /s", "cpu s", "memory MiB"}
    assert all(set(by_name) == {"davfusion", "rclone"} for by_name in of_put.values())
    written = page(docs)
    assert "| start | start s |" in written
    assert "](performance/wsgidav.svg)" in written
    assert "<svg" in (docs / "performance" / "rclone.svg").read_text()

    again = benchmarks("--from-json", str(values), "--docs", str(docs))
    assert again.returncode == 0, again.stderr
    assert page(docs) == written


def test_what_was_written_by_hand_stays(docs: Path) -> None:
    by_hand = page(docs).replace(
        "### What holds back the rest", "### What holds back the rest\n\nX"
    )
    (docs / "performance.md").write_text(by_hand)
    report.write(Results(ABOUT), docs)
    first = page(docs)
    report.write(Results(ABOUT), docs)
    assert page(docs) == first
    generated = False
    for line in by_hand.splitlines():
        generated = (line.startswith("<!-- ") and not line.startswith("<!-- end")) or generated
        assert generated or line in first.splitlines()
        generated = generated and not line.startswith("<!-- end")


def test_a_page_without_its_markers_is_refused(docs: Path) -> None:
    (docs / "performance.md").write_text(page(docs).replace("<!-- growth -->", ""))
    with pytest.raises(ReportError, match="growth"):
        report.write(Results(ABOUT), docs)


def test_what_is_missed_is_marked(docs: Path) -> None:
    results = Results(ABOUT)
    for name, seconds in (("davfusion", 2.0), ("rclone", 1.0)):
        results.add("s3", "list", name, {"list cold s": seconds, "cpu s": 1, "memory MiB": 301})
    report.write(results, docs)
    assert "| list | list cold s | 2 | 1 | 0.50 | ≥ 1 | ✗ missed |" in page(docs)
    assert "| list | 301 | 301 | ≤ 300 | ✗ missed | 1 | 1 |" in page(docs)


def test_growth_beyond_linear_is_marked(docs: Path) -> None:
    results = Results(ABOUT)
    for files, cold, warm in ((10_000, 1.0, 1.0), (100_000, 13.0, 10.0)):
        figures = {"list cold s": cold, "list warm s": warm, "cpu s": 1, "memory MiB": 1}
        results.add("s3", f"list-{files}", "davfusion", figures)
    report.write(results, docs)
    assert "| list cold s | davfusion |  | 1 | 13 | 13 times | ✗ worse than linear |" in page(docs)
    assert "| list warm s | davfusion |  | 1 | 10 | 10 times |  |" in page(docs)


def test_turns_that_went_wrong_are_shown_and_fail_the_run(docs: Path) -> None:
    results = Results(ABOUT, wrong=["s3/list 1 davfusion: 3 names"])
    results.write(docs / "values.json")
    ran = benchmarks("--from-json", str(docs / "values.json"), "--docs", str(docs))
    assert ran.returncode == 1
    assert "- s3/list 1 davfusion: 3 names" in page(docs)
