"""Values that users give, and the table of them in the documentation."""

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from davfusion.cli import serve
from davfusion.config import (
    ConfigError,
    ServerConfig,
    ShareConfig,
    check,
    parse_cache_size,
    parse_junk,
    parse_seconds,
    parse_size,
)
from davfusion.mounting import mount_hints, reachable_names, url_of


def server(**values: Any) -> ServerConfig:
    return ServerConfig(**{"shares": {"/": ShareConfig("/srv")}} | values)


DOCUMENTATION = Path(__file__).parents[1] / "docs" / "configuration.md"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("2000MB", 2000 << 20), ("1.5 GB", 3 << 29), ("5k", 5 << 10), ("1TiB", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e9", "1.", "5 parsecs", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="2000MB"):
        parse_size(text)


def test_a_size_that_forgets_its_unit_is_not_taken_for_no_cache() -> None:
    assert [parse_cache_size(text) for text in ("0", "1MB")] == [0, 1 << 20]
    for text in ("1", "2000", "1023KB"):
        with pytest.raises(ConfigError, match=f"'{text}' is less than 1MB"):
            parse_cache_size(text)


def test_seconds() -> None:
    assert [parse_seconds(text) for text in ("60", "0.5", "10s")] == [60, 0.5, 10]
    for text in ("", "-1", "inf", "1m"):
        with pytest.raises(ConfigError, match="seconds"):
            parse_seconds(text)


def test_junk() -> None:
    assert parse_junk("none") == ()
    assert parse_junk("mac, Windows") == ("._*", ".DS_Store", "Thumbs.db", "desktop.ini")
    with pytest.raises(ConfigError, match="'linux' is none of mac, windows"):
        parse_junk("mac,linux")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_loopback_needs_no_users(host: str) -> None:
    assert check(server(host=host)).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_other_addresses_need_users(host: str) -> None:
    with pytest.raises(ConfigError, match=r"--user.*--anonymous"):
        check(server(host=host))
    check(server(host=host, anonymous=True))
    check(server(host=host, users={"a": "hash"}))
    check(server(host=host, htpasswd=Path("users")))


def test_values_that_do_not_fit_together() -> None:
    with pytest.raises(ConfigError, match="--tls-key"):
        check(server(tls_cert=Path("cert.pem")))
    with pytest.raises(ConfigError, match="--anonymous"):
        check(server(anonymous=True, users={"a": "hash"}))


def test_granian_is_asked_for_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    config = server(server="granian")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("sys.platform", "darwin")
        with pytest.raises(ConfigError, match="Linux"):
            check(config)
    monkeypatch.setattr("sys.platform", "linux")
    assert check(config) == config
    monkeypatch.setitem(sys.modules, "granian", None)
    with pytest.raises(ConfigError, match=r"pip install 'davfusion\[granian\]'"):
        check(config)


def test_a_configuration_reaches_worker_processes_and_shows_no_hash() -> None:
    config = server(
        users={"alice": "$2b$secret"},
        shares={"/": ShareConfig("s3:b", {"secret_access_key": "secret"})},
    )
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301
    assert "secret" not in repr(config)


def test_the_documentation_lists_every_option_with_its_default() -> None:
    rows = {}
    for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| `(\S+)` \| `(\w+)` \| (.*?) ?\| ", line):
            rows[match[1]] = (match[2], match[3])
    options = [param for param in serve.params if isinstance(param, click.Option)]
    assert set(rows) == {"TARGET", *(option.opts[0] for option in options)}
    for option in options:
        variable, default = rows[option.opts[0]]
        assert variable == "DAVFUSION_" + option.opts[0][2:].upper().replace("-", "_")
        if option.show_default is True:
            assert default == str(option.default)


def test_urls() -> None:
    assert url_of("127.0.0.1", 8080, tls=False) == "http://127.0.0.1:8080/"
    assert url_of("::1", 443, tls=True) == "https://[::1]/"
    assert reachable_names("10.0.0.1") == ["10.0.0.1"]
    assert reachable_names("0.0.0.0")[0] == "127.0.0.1"  # noqa: S104


@pytest.mark.parametrize(
    ("system", "hint"),
    [("linux", "gio mount davs://h/"), ("darwin", "Cmd-K"), ("win32", "net use * https://h/")],
)
def test_each_system_has_its_way_to_mount(system: str, hint: str) -> None:
    assert hint in "\n".join(mount_hints("https://h/", system, users=True))


def test_rclone_is_told_who_it_is_only_where_there_are_users() -> None:
    for users in (True, False):
        assert ("--webdav-user" in mount_hints("http://h/", "linux", users=users)[-1]) == users


def test_windows_is_told_that_passwords_need_tls() -> None:
    assert "--tls-cert" in mount_hints("http://h/", "win32", users=True)[-1]
    assert "--tls-cert" not in mount_hints("http://h/", "win32", users=False)[-1]
