"""state.sqlite: what is lost with a damaged file is not lost for good, and stops nobody."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from davfusion.provider.state import State


def change(state: State, value: str) -> None:
    state.properties.change("/a", {"{x}p": value})


def fill_and_die(path: Path) -> None:
    state = State(path)
    for number in range(200):
        state.properties.change(f"/a/{number}", {"{x}p": "<p/>" * 20})
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state that a killed process has left, with its log."""
    path = tmp_path / "state.sqlite"
    process = multiprocessing.get_context("spawn").Process(target=fill_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return path


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def halve(path: Path) -> None:
    wal(path).unlink()
    os.truncate(path, 3 * 4096 + 17)


def zero(path: Path) -> None:
    wal(path).unlink()
    path.write_bytes(bytes(path.stat().st_size))


def garble(path: Path) -> None:
    wal(path).unlink()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(byte ^ 0x5A for byte in data[4096:]))


@pytest.mark.parametrize("damage", [halve, zero, garble])
def test_a_damaged_file_is_kept_aside_and_an_empty_one_begun(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    merge_log(path)
    wal(path).touch()
    damage(path)
    left = path.read_bytes()
    states = [State(path, lambda: 1234.5) for _ in range(2)]
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "state.sqlite.damaged-1234" in record.getMessage()
    assert path.with_name("state.sqlite.damaged-1234").read_bytes() == left
    change(states[0], "<new/>")
    assert states[1].properties.of("/a") == {"{x}p": "<new/>"}
    assert path.stat().st_mode & 0o777 == 0o600
    for state in states:
        state.close()


def merge_log(path: Path) -> None:
    """Into the file, as the last one does that closes it."""
    state = State(path)
    assert state.properties.of("/a/7")
    state.close()
    assert path.stat().st_size > 8 * 4096


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("name", ["state.sqlite", "state.sqlite-wal", "state.sqlite-shm"])
@pytest.mark.parametrize("damage", [empty, Path.unlink, lambda p: p.write_bytes(bytes(50_000))])
def test_the_server_starts_whatever_file_is_damaged(
    path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(path.with_name(name))
    state = State(path)
    change(state, "<new/>")
    assert state.properties.of("/a") == {"{x}p": "<new/>"}
    state.close()


def test_a_sound_file_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = State(path)
    assert all(state.properties.of(f"/a/{number}") for number in range(200))
    state.close()
    assert not list(path.parent.glob("*.damaged-*"))
    assert caplog.records == []


def test_no_checksum_is_kept_for_content_that_has_no_version() -> None:
    state = State(None)
    state.note_checksum("/f", "1", "MD5:0")
    state.note_checksum("/f", "", "MD5:1")
    assert state.checksums.of("/f") == {}
