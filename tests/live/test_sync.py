"""Reports of changes (RFC 6578) over every store, by two workers and across a restart."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

import pytest

from tests.live.serving import Serving
from tests.provider.client import DavClient, Reply
from tests.provider.test_sync import Replica

pytestmark = pytest.mark.live


@dataclass
class HttpClient:
    """A DavClient's requests, each by a connection of its own, so by any of the workers."""

    share: Serving

    def __call__(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.share.port, timeout=30)
        connection.request(method, quote(path), body, dict(headers or {}))
        answer = connection.getresponse()
        got = {name.lower(): value for name, value in answer.getheaders()}
        reply = Reply(answer.status, got, answer.read())
        connection.close()
        return reply


def test_changes_are_reported_by_all_workers_and_after_a_restart(share: Serving) -> None:
    ask = HttpClient(share)
    replica = Replica(cast("DavClient", ask), "/")
    assert ask("MKCOL", "/d").status == 201
    for number in range(6):
        assert ask("PUT", f"/d/{number}", b"old").status == 201
    replica.sync()
    assert replica.etags.keys() == {"/d", *(f"/d/{number}" for number in range(6))}
    for number in range(4):
        assert ask("PUT", f"/d/{number}", b"new").status == 204
        assert replica.sync().keys() == {f"/d/{number}"}
    assert ask("DELETE", "/d/0").status == 204
    assert replica.sync() == {"/d/0": None}
    assert replica.sync() == {}
    if "memory:" not in share.command:
        share.stop()
        share.start()
        assert ask("PUT", "/d/1", b"newest").status == 204
        assert replica.sync().keys() == {"/d/1"}
