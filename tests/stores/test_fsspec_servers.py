"""FsspecStore by the contract, on real servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.store import Store
from tests.conformance import StoreConformance
from tests.fsspec_servers import SftpServer

pytestmark = pytest.mark.live


class TestSftp(StoreConformance):
    @pytest.fixture
    def store(self, sftp_server: SftpServer, tmp_path: Path) -> Iterator[Store]:
        (tmp_path / "a root").mkdir()
        store = FsspecStore(f"{sftp_server.address}{tmp_path}/a%20root")
        yield store
        store.reconnect()
