"""Workers that are spawned, as macOS and Windows have it, serve as those that are forked do."""

from pathlib import Path

import pytest

from tests.live.serving import program, run, serving

SPAWNING = """
import davfusion.platform

davfusion.platform.START_METHOD = "spawn"
from davfusion.__main__ import main

main()
"""


@pytest.mark.live
@pytest.mark.parametrize("kind", ["local", "memory"])
def test_spawned_workers_serve(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "f").write_text("content")
    target = "memory:" if kind == "memory" else str(tmp_path / "files")
    curl = [program("curl"), "--silent", "--fail", "--retry", "10", "--retry-all-errors"]
    with serving(target, tmp_path, program=("-c", SPAWNING)) as server:
        for number in range(8):
            url = f"{server.url}f{number}"
            run(*curl, "-T", str(tmp_path / "f"), url)
            assert run(*curl, url) == "content"
