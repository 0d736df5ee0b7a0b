"""`davfusion login dropbox` and `logout`, with the emulator of Dropbox's pages."""

import stat
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from click.testing import CliRunner, Result

from davfusion.cli import command
from davfusion.config import ConfigError, ServerConfig, ShareConfig
from davfusion.preparing import Preparation
from davfusion.share import ShareError, open_share
from davfusion.stores.dropbox import DropboxStore, credentials
from davfusion.stores.dropbox.client import account_of
from davfusion.stores.dropbox.credentials import Credentials, token_file
from davfusion.stores.dropbox.login import SCOPES, Login
from davfusion.stores.errors import StoreAutorizationError
from tests.samples import put
from tests.servers import requests_of

pytestmark = pytest.mark.live


@pytest.fixture
def account(dropbox: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A Dropbox for which no login is in the environment."""
    monkeypatch.delenv("DAVFUSION_DROPBOX_TOKEN")
    monkeypatch.setenv("DAVFUSION_DROPBOX_TOKEN_FILE", str(tmp_path / "config" / "dropbox.json"))
    return dropbox


def code_of(url: str, cert: str) -> str:
    """What the user copies from the page."""
    return requests.get(url, verify=cert, timeout=10).text


def run(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(command, arguments, input=answers)


def logged_in(account: Any, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Log in as a user does: the code comes from the page that is printed."""
    monkeypatch.setattr("click.prompt", lambda _: code_of(urls[-1], account.cert))
    urls: list[str] = []
    made = Login.__init__

    def noted(login: Login, app_key: str) -> None:
        made(login, app_key)
        urls.append(login.url)

    monkeypatch.setattr(Login, "__init__", noted)
    result = run("login", "dropbox", "--app-key", account.app_key)
    assert urls[0] in result.output
    return result


def test_a_login_lasts(account: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = logged_in(account, monkeypatch)
    kept = tmp_path / "config" / "dropbox.json"
    assert result.exit_code == 0
    assert f"Logged in as emulator@example.com; the login is kept in {kept}" in result.output
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    account.other.put("/file", b"content")
    store = DropboxStore()
    assert store.get_file("/file") == b"content"
    assert store.get_name() == "dropbox:/ of emulator@example.com"
    account.control(expire_tokens=True)
    assert store.get_file("/file") == b"content"
    store.reconnect()


def test_the_page_asks_for_what_is_needed_and_no_secret(account: Any) -> None:
    asked = parse_qs(urlsplit(Login(account.app_key).url).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["token_access_type"] == ["offline"]
    assert asked["scope"] == [" ".join(SCOPES)]
    assert "client_secret" not in asked


def test_a_wrong_code(account: Any, tmp_path: Path) -> None:
    result = run("login", "dropbox", "--app-key", account.app_key, answers="wrong\n")
    assert isinstance(result.exception, ConfigError)
    assert "does not take this code" in str(result.exception)
    assert not (tmp_path / "config" / "dropbox.json").exists()


def test_a_dropbox_that_is_away(account: Any) -> None:
    account.control(faults=[{"endpoint": "oauth2/token", "drop_request_after": 0}])
    result = run("login", "dropbox", "--app-key", account.app_key, answers="some code\n")
    assert isinstance(result.exception, ConfigError)
    assert "api.dropboxapi.com must be in reach" in str(result.exception)


def test_logging_out(account: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    logged_in(account, monkeypatch)
    login = (tmp_path / "config" / "dropbox.json").read_text()
    assert run("logout", "dropbox").exit_code == 0
    assert isinstance(run("logout", "dropbox").exception, ConfigError)
    with pytest.raises(StoreAutorizationError, match="davfusion login dropbox"):
        DropboxStore().check_access()
    (tmp_path / "config" / "dropbox.json").write_text(login)
    with pytest.raises(StoreAutorizationError, match="davfusion login dropbox"):
        DropboxStore().check_access()


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"unknown": 1}', "{}"])
def test_a_file_that_holds_no_login(account: Any, tmp_path: Path, text: str) -> None:
    del account
    kept = tmp_path / "dropbox.json"
    kept.write_text(text)
    with pytest.raises(StoreAutorizationError, match="davfusion login dropbox"):
        DropboxStore(token_file=kept).check_access()


def test_a_share_is_not_opened_with_anothers_login(account: Any, tmp_path: Path) -> None:
    credentials.keep(Credentials(account.token, account="first@example.com"), token_file())
    share = ShareConfig("dropbox:", cache_dir=tmp_path, cache_id="one")
    with closing(Preparation()) as preparation:
        (prepared,) = preparation.prepare(ServerConfig({"/": share}))
        prepared.open_target()
        credentials.keep(Credentials(account.token, account="second@example.com"), token_file())
        with pytest.raises(ShareError, match="second@example"):
            prepared.open_target()
        with pytest.raises(ShareError, match="takes a restart"):
            preparation.prepare(ServerConfig({"/": share}))


def test_a_token_of_the_environment_is_somebodys(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account_of.cache_clear()
    credentials.keep(Credentials(account.token, account="first@example.com"), token_file())
    store = DropboxStore()
    monkeypatch.setenv("DAVFUSION_DROPBOX_TOKEN", account.token)
    with pytest.raises(StoreAutorizationError, match="is emulator@example"):
        store.account_info()
    for _ in range(2):
        assert DropboxStore("/a").get_name() == "dropbox:/a of emulator@example.com"
    assert requests_of(account) == ["users/get_current_account"]


def test_a_token_that_is_nobodys_is_refused(
    account: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    del account
    monkeypatch.setenv("DAVFUSION_DROPBOX_TOKEN", "nobody's")
    share = ShareConfig("dropbox:", cache_dir=tmp_path)
    with closing(Preparation()) as preparation, pytest.raises(ShareError, match="how to log in"):
        preparation.prepare(ServerConfig({"/": share}))


def test_what_waits_for_an_account_is_not_sent_by_anothers_login(
    account: Any, tmp_path: Path
) -> None:
    credentials.keep(Credentials(account.token, account="first@example.com"), token_file())
    with closing(Preparation()) as preparation:
        share = ShareConfig("dropbox:", cache_dir=tmp_path, cache_id="one")
        (prepared,) = preparation.prepare(ServerConfig({"/": share}))
        put(open_share(prepared).store, "/file")
    credentials.keep(Credentials(account.token, account="second@example.com"), token_file())
    drained = run("drain", "--cache-dir", str(tmp_path))
    assert drained.exit_code == 1
    assert "what waits is for dropbox:/ of first@example.com" in drained.output
    with closing(Preparation()) as preparation, pytest.raises(ShareError, match="not been sent"):
        preparation.prepare(ServerConfig({"/": share}))
    assert account.other.tree() == {}
    credentials.keep(Credentials(account.token, account="first@example.com"), token_file())
    assert run("drain", "--cache-dir", str(tmp_path)).exit_code == 0
    assert account.other.tree().keys() == {"/file"}
