"""Errors of a start say what the user may do about that very store."""

from pathlib import Path

import pytest

from davfusion.config import ShareConfig
from davfusion.cures import cure
from davfusion.preparing import AccessCheck
from davfusion.share import ShareError, open_target
from davfusion.stores.credentials import PASSWORD
from davfusion.stores.dropbox import credentials
from davfusion.stores.errors import StoreAccessError
from tests.fsspec_servers import DavServer, FtpServer, SftpServer

NOBODY = "127.0.0.1:9"
LATE = 20.0


def told(target: str) -> str:
    """What a start with `target` says of it."""
    config = ShareConfig(target)
    try:
        store = open_target(config)
        return AccessCheck(config).warning(store, LATE) or ""
    except ShareError as error:
        return str(error)


@pytest.mark.parametrize("scheme", ["sftp", "ftp", "webdav", "webdavs", "smb"])
def test_a_host_that_does_not_answer(scheme: str) -> None:
    said = told(f"{scheme}://me@{NOBODY}/share")
    assert "check the network, and the host and port" in said
    assert "until it answers" in said.lower()


@pytest.mark.live
def test_a_user_who_is_not_known(
    sftp_server: SftpServer,
    ftp_server: FtpServer,
    dav_server: DavServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSWORD, "wrong")
    assert "`sftp USER@HOST`" in told(f"sftp://nobody@127.0.0.1:{sftp_server.port}/srv")
    for server in (ftp_server, dav_server):
        assert PASSWORD in told(server.address)


@pytest.mark.live
def test_a_key_that_is_missing(
    sftp_server: SftpServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    assert "known_hosts" in told(sftp_server.address)
    known = (sftp_server.home / ".ssh" / "known_hosts").read_text()
    (tmp_path / ".ssh" / "known_hosts").write_text(known)
    assert "`sftp USER@HOST`" in told(sftp_server.address)


def test_a_dropbox_without_a_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(credentials.TOKEN, raising=False)
    monkeypatch.setenv(credentials.TOKEN_FILE, str(tmp_path / "none.json"))
    assert "davfusion login dropbox" in told("dropbox:")


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("abfs://container", "AZURE_STORAGE_CONNECTION_STRING"),
        ("abfss://container@account.dfs.core.windows.net", "AZURE_STORAGE_CONNECTION_STRING"),
        ("gdrive://folder", "service account"),
        ("github://org:repo@main", "github://ORG:REPO@BRANCH"),
    ],
)
def test_a_login_that_is_missing_is_no_refusal_of_the_service(target: str, named: str) -> None:
    """These classes say so by an error like any other."""
    assert named in cure(ShareConfig(target), StoreAccessError("no credentials"))
