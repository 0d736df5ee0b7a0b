"""Which names a server without users answers to."""

from collections.abc import Iterable
from typing import TYPE_CHECKING
from wsgiref.util import setup_testing_defaults

import pytest

from davfusion.host_check import MAX_LOGGED, HostCheck

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"content"]


def ask(check: HostCheck, host: str | None) -> tuple[int, bytes]:
    environ: WSGIEnvironment = {}
    setup_testing_defaults(environ)
    del environ["HTTP_HOST"]
    if host is not None:
        environ["HTTP_HOST"] = host
    statuses: list[str] = []

    def start_response(status: str, *_: object) -> object:
        statuses.append(status)
        return None

    body = b"".join(check(environ, start_response))  # type: ignore[arg-type]
    return int(statuses[0][:3]), body


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.:8080",
        "files.localhost:1",
        "127.0.0.1",
        "127.9.8.7:80",
        "[::1]:8080",
        "NAS.home:8080",
        None,
    ],
)
def test_own_names(host: str | None) -> None:
    assert ask(HostCheck(application, "nas.home"), host) == (200, b"content")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:8080",
        "notlocalhost",
        "192.0.2.1",
        "[2001:db8::1]:80",
    ],
)
def test_other_names_are_refused_with_the_cure(host: str) -> None:
    status, body = ask(HostCheck(application, "127.0.0.1"), host)
    assert status == 421
    assert b"--user" in body
    assert b"--anonymous" in body
    assert body.count(b"\n") == 1


def test_each_name_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    check = HostCheck(application, "127.0.0.1")
    for port in range(3):
        ask(check, f"evil.example:{port}")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "evil.example" in caplog.messages[0]
    for number in range(2 * MAX_LOGGED):
        ask(check, f"evil{number}.example")
    assert len(caplog.records) == MAX_LOGGED
