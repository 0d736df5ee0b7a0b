"""FsspecStore by the contract: on fsspec's local files and memory."""

from pathlib import Path
from uuid import uuid4

import pytest

from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.store import Store
from tests.conformance import StoreConformance


class TestLocal(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        (tmp_path / "root").mkdir()
        return FsspecStore(f"file://{tmp_path}/root")


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> Store:
        return FsspecStore(f"memory://{uuid4().hex}")
