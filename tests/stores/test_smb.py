"""SMB by FsspecStore and smbprotocol, on Debian's Samba: by the contract."""

import pytest

from davfusion.stores.errors import InvalidPathValueError
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.fsspec.smb import SmbBackend
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from davfusion.stores.store import Store
from tests.conformance import NAMES, StoreConformance, put
from tests.fsspec_servers import SmbServer, end_sessions

pytestmark = [pytest.mark.live, pytest.mark.slow]

SMB_NAMES = [name for name in NAMES if SmbBackend.why_refused(name) is None]


class TestSmb(StoreConformance):
    many = 250
    """It has no pages."""

    @pytest.mark.parametrize("name", SMB_NAMES, ids=ascii)
    def test_names(self, store: Store, name: str) -> None:
        super().test_names(store, name)

    @pytest.fixture
    def store(self, smb_store: FsspecStore) -> Store:
        """Files that are open are refused for a moment."""
        return RetryingStore(smb_store, RetryPolicy(attempts=20, first=0.01))


def test_names_that_windows_refuses(smb_store: FsspecStore) -> None:
    for name in set(NAMES) - set(SMB_NAMES):
        with pytest.raises(InvalidPathValueError, match="takes no name"):
            put(smb_store, f"/{name}")


def test_a_connection_that_breaks_is_made_anew(
    smb_server: SmbServer, smb_store: FsspecStore
) -> None:
    store = RetryingStore(smb_store, RetryPolicy(first=0.01))
    put(store, "/file", b"first")
    end_sessions(smb_server.process)
    assert store.get_file("/file") == b"first"
    end_sessions(smb_server.process)
    put(store, "/file", b"second")
    assert store.get_file("/file") == b"second"
