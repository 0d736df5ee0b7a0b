"""The public DAV suite and the replay of real clients, over every store with two workers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers
from tests.http_names import LITMUS_DIFFERENCES, REPLAY_DIFFERENCES
from tests.live.serving import Serving, program

pytestmark = pytest.mark.live
PARTS = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}
"""litmus 0.13's parts and how many tests each has."""
DROPBOX_DIFFERENCES = {"finder: an NFD name is listed as it was sent"}
"""Dropbox keeps names in composed letters, and finds them in both."""


def test_litmus(share: Serving, tmp_path: Path, http_name: str) -> None:
    done = subprocess.run(
        [program("litmus"), "-k", share.url],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = done.stdout.replace("\r", "\n")
    passed = dict(re.findall(r"summary for `(\w+)': of \d+ tests run: (\d+) passed, 0 fa", output))
    assert passed == {part: str(count) for part, count in PARTS.items()}, output
    warnings = [line for line in output.splitlines() if "WARNING" in line]
    expected = LITMUS_DIFFERENCES if http_name == "granian" else {}
    assert len(warnings) == len(expected), output
    assert all(part in line for part, line in zip(expected, warnings, strict=True)), output


def test_client_replay(share: Serving, http_name: str) -> None:
    replay = servers.testing_program("clientreplay").__file__
    done = subprocess.run(
        [sys.executable, str(replay), share.url, "--quiet"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    failed = set(re.findall(r"^FAIL (.+?): expected", done.stdout, re.MULTILINE))
    expected = set(REPLAY_DIFFERENCES) if http_name == "granian" else set()
    expected |= DROPBOX_DIFFERENCES if "dropbox:/served" in share.command else set()
    assert failed == expected, done.stdout + done.stderr
    assert (done.returncode == 0) == (not expected), done.stdout + done.stderr
