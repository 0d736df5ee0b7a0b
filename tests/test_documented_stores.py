"""docs/stores.md says what the stores' features say."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.smb import SmbBackend
from davfusion.stores.registry import open_store
from davfusion.stores.store import Features

DOCUMENTED = (
    "server_side_copy",
    "server_side_move",
    "atomic_move",
    "flat_listing",
    "change_feed",
    "case_insensitive_names",
)
NOT_CONNECTED = {"gs://bucket/prefix": Backend, "smb://user@host/share/folder": SmbBackend}
"""Stores whose packages are no part of the development tools, or may be missing."""
PAGE = Path(__file__).parents[1] / "docs" / "stores.md"


def table() -> Mapping[str, tuple[str, ...]]:
    """Target -> its cells, of the table whose head names the features."""
    rows = re.findall(r"^\| `([^`]+)` \|(.+)\|$", PAGE.read_text(), re.MULTILINE)
    cells = {target: tuple(cell.strip() for cell in row.split("|")) for target, row in rows}
    return {target: row for target, row in cells.items() if len(row) == len(DOCUMENTED)}


@pytest.mark.parametrize("target", list(table()))
def test_the_table(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if target in NOT_CONNECTED:
        features = NOT_CONNECTED[target].features
    else:
        features = open_store(target.replace("/srv/files", str(tmp_path))).features
    cells = tuple("yes" if getattr(features, name) else "" for name in DOCUMENTED)
    assert table()[target] == cells
    assert features.atomic_replace
    assert features.ranged_read


def test_the_head() -> None:
    names = {field.name for field in fields(Features)}
    assert names.issuperset(DOCUMENTED)
    assert len(table()) == 9
