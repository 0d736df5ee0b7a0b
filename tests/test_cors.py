"""Which web pages may come, and what a browser is told before it asks in their name."""

import pytest

from davfusion.cors import ANY, Cors
from tests.provider.client import DavClient, Reply
from tests.test_config import server

PAGE = "https://app.example"


class Closed:
    """Nobody has a password."""

    def check(self, name: str, password: str, address: str) -> bool:
        return not (name and password and address)


def ask(
    origins: tuple[str, ...], method: str, origin: str = PAGE, *, users: bool = True, **headers: str
) -> Reply:
    client = DavClient(users=Closed() if users else None)
    client.app = Cors(client.app, origins)  # type: ignore[assignment]
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client(method, "/", headers={"Origin": origin} | sent)


def preflight(origins: tuple[str, ...], origin: str = PAGE, wanted: str = "PROPFIND") -> Reply:
    return ask(
        origins,
        "OPTIONS",
        origin,
        Access_Control_Request_Method=wanted,
        Access_Control_Request_Headers="authorization, depth",
    )


@pytest.mark.parametrize(("origins", "told"), [((ANY,), ANY), ((PAGE, "app://x"), PAGE)])
def test_a_preflight_is_answered_before_authentication(origins: tuple[str, ...], told: str) -> None:
    reply = preflight(origins)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == told
    assert reply.headers["access-control-allow-methods"] == "PROPFIND"
    assert reply.headers["access-control-allow-headers"] == "authorization, depth"
    assert "access-control-allow-credentials" not in reply.headers
    assert (reply.headers.get("vary") == "Origin") == (told != ANY)


@pytest.mark.parametrize("origins", [("https://other.example",), ("none",)])
def test_other_pages_are_told_nothing(origins: tuple[str, ...]) -> None:
    for reply in (preflight(origins), ask(origins, "GET", users=False)):
        assert not [name for name in reply.headers if name.startswith("access-control")]
    assert preflight(origins).status == 401


def test_answers_can_be_read_errors_included() -> None:
    refused, found = ask((ANY,), "GET"), ask((ANY,), "PROPFIND", users=False, Depth="0")
    assert (refused.status, found.status) == (401, 207)
    for reply in (refused, found):
        assert reply.headers["access-control-allow-origin"] == ANY
        assert "ETag" in reply.headers["access-control-expose-headers"]


def test_what_is_no_method_is_not_repeated() -> None:
    assert "access-control-allow-methods" not in preflight((ANY,), wanted="GET\r\nX: y").headers
    assert "access-control-allow-methods" not in preflight((ANY,), wanted="").headers


def test_without_users_no_page_may_come_unless_it_is_named() -> None:
    assert server().origins == ()
    assert server(cors_origins=(PAGE,)).origins == (PAGE,)
    assert server(users={"a": "b"}).origins == (ANY,)
    assert server(users={"a": "b"}, cors_origins=("none",)).origins == ("none",)
