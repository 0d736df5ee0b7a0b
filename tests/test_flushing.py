"""What is written is brought to the disk meanwhile: the end is short, and the content whole."""

import os
from pathlib import Path

import pytest

from davfusion.flushing import Flushing

MIB = 1 << 20


def test_little_is_left_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, on_disk = os.fsync, []

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        on_disk.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", noted)
    with (tmp_path / "file").open("xb") as file:
        flushing = Flushing(file)
        for _ in range(600):
            file.write(bytes(MIB))
            flushing.wrote(MIB)
            assert file.tell() - max(on_disk, default=0) <= 144 * MIB
        assert len(on_disk) == 600 // 128
        flushing.end()
    assert on_disk[-1] == 600 * MIB
    assert (tmp_path / "file").stat().st_size == 600 * MIB
