"""FsspecStore by the contract, on real servers."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

from davfusion.stores.credentials import PASSWORD
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.store import Store
from tests.conformance import NAMES, StoreConformance
from tests.fsspec_servers import DavServer, FtpServer, SftpServer

pytestmark = pytest.mark.live

FTP_NAMES = [name for name in NAMES if "\n" not in name]
"""A command of FTP is a line."""


class TestSftp(StoreConformance):
    @pytest.fixture
    def store(self, sftp_server: SftpServer, tmp_path: Path) -> Iterator[Store]:
        (tmp_path / "a root").mkdir()
        store = FsspecStore(f"{sftp_server.address}{tmp_path}/a%20root")
        yield store
        store.reconnect()


class TestFtp(StoreConformance):
    @pytest.fixture
    def store(self, ftp_server: FtpServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        monkeypatch.setenv(PASSWORD, "secret")
        root = uuid4().hex
        (ftp_server.root / root).mkdir()
        store = FsspecStore(f"{ftp_server.address}/{root}")
        yield store
        store.reconnect()

    @pytest.mark.parametrize("name", FTP_NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        super().test_names(store, name)


class TestWebDav(StoreConformance):
    @pytest.fixture
    def store(self, dav_server: DavServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        monkeypatch.setenv(PASSWORD, "secret")
        root = f"a root {uuid4().hex}"
        FsspecStore(dav_server.address).create_directory(f"/{root}")
        store = FsspecStore(f"{dav_server.address}/{quote(root)}")
        yield store
        store.reconnect()
