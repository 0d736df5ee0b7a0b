"""REPORT sync-collection (RFC 6578): a client learns of all that changed since its token."""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import unquote
from xml.sax.saxutils import escape

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st
from wsgidav.dav_error import DAVError

from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.provider import sync_log
from davfusion.provider.report import parse_sync
from davfusion.provider.state import State
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.observed import ObservedStore
from davfusion.stores.store import (
    Metadata,
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
)
from davfusion.stores.wrapper import StoreWrapper
from tests.provider.client import D, DavClient, Reply
from tests.remote import RemoteStore
from tests.samples import put


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.mkcol("/a", "/a/b", "/other")
    for path in ("/a/1", "/a/2", "/a/b/3", "/other/4"):
        client.put(path, b"old")
    return client


def ask(
    client: DavClient, folder: str, token: str = "", level: str = "infinite", **more: str
) -> Reply:
    limit = f"<D:limit><D:nresults>{more['limit']}</D:nresults></D:limit>" if more else ""
    body = (
        f'<D:sync-collection xmlns:D="DAV:"><D:sync-token>{token}</D:sync-token>'
        f"<D:sync-level>{level}</D:sync-level>{limit}<D:prop><D:getetag/></D:prop>"
        "</D:sync-collection>"
    )
    return client("REPORT", folder, body.encode(), {"Depth": "0"})


@dataclass
class Replica:
    """What a sync client knows of a folder, by nothing but its reports."""

    client: DavClient
    folder: str = "/a"
    level: str = "infinite"
    limit: int | None = None
    token: str = ""
    etags: dict[str, str | None] = field(default_factory=dict)

    def sync(self) -> dict[str, str | None]:
        """Apply one report; returns it: path -> ETag, "" for a folder, None for gone."""
        more = {"limit": str(self.limit)} if self.limit else {}
        reply = ask(self.client, self.folder, self.token, self.level, **more)
        assert reply.status == 207, reply.body
        root = fromstring(reply.body)
        self.token = root.findtext(D + "sync-token") or ""
        report: dict[str, str | None] = {}
        for response in root.iter(D + "response"):
            path = unquote(response.findtext(D + "href") or "").rstrip("/")
            status = response.findtext(D + "status") or "200"
            if "507" not in status:
                etag = response.findtext(f"{D}propstat/{D}prop/{D}getetag")
                report[path] = None if "404" in status else etag or ""
        for path, known in report.items():
            self.etags.pop(path, None)
            if known is not None:
                self.etags[path] = known
        return report


def truth(client: DavClient, folder: str) -> dict[str, str | None]:
    """What a replica of all below the folder must know."""
    found = client.propfind(folder, "getetag", depth="infinity").properties()
    return {
        path.rstrip("/"): props[D + "getetag"][1].text if not path.endswith("/") else ""
        for path, props in found.items()
        if path.rstrip("/") != folder
    }


def test_a_report_holds_the_changes_since_the_token(client: DavClient) -> None:
    replica = Replica(client)
    assert set(replica.sync()) == {"/a/1", "/a/2", "/a/b", "/a/b/3"}
    assert replica.sync() == {}
    client.put("/a/1", b"new")
    client("DELETE", "/a/2")
    client.put("/other/4", b"not below")
    client("MOVE", "/a/b", headers={"Destination": "/a/c"})
    assert {path: known is not None for path, known in replica.sync().items()} == {
        "/a/1": True,
        "/a/2": False,
        "/a/b": False,
        "/a/b/3": False,
        "/a/c": True,
        "/a/c/3": True,
    }
    assert replica.etags == truth(client, "/a")
    assert replica.sync() == {}


def test_level_1_is_about_the_members_alone(client: DavClient) -> None:
    replica = Replica(client, level="1")
    assert set(replica.sync()) == {"/a/1", "/a/2", "/a/b"}
    client.put("/a/b/3", b"new")
    assert replica.sync() == {}
    client("DELETE", "/a/b")
    assert replica.sync() == {"/a/b": None}


def test_a_folder_goes_by_the_name_that_it_was_reported_with(client: DavClient) -> None:
    client("MKCOL", "/a/b/deep")
    replica = Replica(client)
    replica.sync()
    client("DELETE", "/a/b")
    gone = fromstring(ask(client, "/a", replica.token, "infinite").body)
    hrefs = {href.text for href in gone.iter(D + "href")}
    assert hrefs == {"/a/b/", "/a/b/3", "/a/b/deep/"}


def test_what_another_program_does_is_reported(client: DavClient) -> None:
    replica = Replica(client)
    replica.sync()
    put(client.store, "/a/1", b"foreign")
    client.store.delete("/a/b", is_dir=True)
    put(client.store, "/a/b", b"a file by now")
    assert replica.sync().keys() == {"/a/1", "/a/b", "/a/b/3"}
    assert replica.etags == truth(client, "/a")


def test_a_change_of_properties_is_a_change(client: DavClient) -> None:
    replica = Replica(client)
    replica.sync()
    client.proppatch("/a/1", "<X:colour>blue</X:colour>")
    client.proppatch("/a/b", "<X:colour>blue</X:colour>")
    assert replica.sync().keys() == {"/a/1", "/a/b"}


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_cuts_the_report_and_its_token_goes_on(client: DavClient, limit: int) -> None:
    reply = ask(client, "/a", limit=str(limit))
    own = fromstring(reply.body).findall(D + "response")[-1]
    assert own.findtext(D + "href") == "/a/"
    assert "507" in (own.findtext(D + "status") or "")
    assert own.find(f"{D}error/{D}number-of-matches-within-limits") is not None
    replica = Replica(client, limit=limit)
    while report := replica.sync():
        assert len(report) <= limit
    assert replica.etags == truth(client, "/a")


def test_a_limit_that_is_not_reached_cuts_nothing(client: DavClient) -> None:
    assert b"507" not in ask(client, "/a", limit="4").body
    assert ask(client, "/a", limit="0").status == 400


@pytest.mark.parametrize("token", ["other", "data:,davfusion-sync-00-1", "{0}9", "{0}-1", "{0}x"])
def test_a_token_that_is_none_of_ours_begins_anew(client: DavClient, token: str) -> None:
    replica = Replica(client)
    replica.sync()
    reply = ask(client, "/a", token.format(replica.token))
    assert (reply.status, b"valid-sync-token" in reply.body) == (403, True)


def test_a_token_is_of_one_folder(client: DavClient) -> None:
    replica, other = Replica(client), Replica(client, "/other")
    replica.sync(), other.sync()
    assert ask(client, "/a", other.token).status == 403
    assert ask(client, "/a/", replica.token).status == 207


def test_what_is_gone_is_forgotten_some_time_and_older_tokens_with_it(
    client: DavClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_log, "GONE_KEPT", 2)
    old, replica = Replica(client), Replica(client)
    old.sync(), replica.sync()
    for path in ("/a/1", "/a/2", "/a/b/3"):
        client("DELETE", path)
        replica.sync()
    assert ask(client, "/a", old.token).status == 403
    assert replica.sync() == {}
    client("DELETE", "/a/b")
    assert replica.sync() == {"/a/b": None}


def test_a_restart_keeps_the_tokens(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, "/a/1")
    before = DavClient(store, State(tmp_path / "state.sqlite"))
    replica = Replica(before)
    replica.sync()
    before.state.close()
    put(store, "/a/2")
    replica.client = DavClient(store, State(tmp_path / "state.sqlite"))
    assert replica.sync().keys() == {"/a/2"}


def test_workers_share_the_log(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, "/a/1")
    workers = [DavClient(store, State(tmp_path / "state.sqlite")) for _ in range(2)]
    replica = Replica(workers[0])
    replica.sync()
    put(store, "/a/2")
    Replica(workers[1]).sync()
    assert replica.sync().keys() == {"/a/2"}
    for worker in workers:
        worker.state.close()


class BreakingStore(StoreWrapper):
    """A service that goes away in the middle of a listing."""

    error: StoreAccessError | None = None

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        if self.error and directory == "/a/b":
            raise self.error
        return super().get_directory_metadata(directory)


@pytest.fixture
def breaking() -> Replica:
    """In sync with a share over a BreakingStore."""
    store = BreakingStore(MemoryStore())
    for path in ("/a/1", "/a/b/2", "/a/b/c/3"):
        put(store, path)
    replica = Replica(DavClient(store))
    replica.sync()
    put(store, "/a/4")
    return replica


def test_a_look_that_fails_reports_nothing_gone(breaking: Replica) -> None:
    store = cast("BreakingStore", breaking.client.store)
    store.error = TransientStoreError("away")
    assert ask(breaking.client, "/a", breaking.token).status == 503
    store.error = None
    assert breaking.sync().keys() == {"/a/4"}


def test_a_folder_that_may_not_be_read_is_not_gone(breaking: Replica) -> None:
    store = cast("BreakingStore", breaking.client.store)
    store.error = StoreAutorizationError("not yours")
    assert breaking.sync().keys() == {"/a/4"}
    store.error = None
    put(store, "/a/b/c/3", b"new")
    assert breaking.sync().keys() == {"/a/b/c/3"}
    store.error = StoreAutorizationError("not yours")
    assert ask(breaking.client, "/a/b", breaking.token).status == 403


def test_a_damaged_log_is_set_aside_and_its_tokens_end(tmp_path: Path) -> None:
    client = DavClient(MemoryStore(), State(tmp_path / "state.sqlite"))
    replica = Replica(client, "/")
    replica.sync()
    client.state.close()
    (tmp_path / "sync.sqlite").write_bytes(b"not a database" * 500)
    replica.client = DavClient(client.store, State(tmp_path / "state.sqlite"))
    assert ask(replica.client, "/", replica.token).status == 403
    assert Replica(replica.client, "/").sync() == {}


def test_the_token_is_a_property_and_a_condition(client: DavClient) -> None:
    def token(path: str) -> str:
        props = client.propfind(path, "sync-token").properties()
        status, found = props[path][D + "sync-token"]
        assert status == (200 if path.endswith("/") else 404)
        return found.text or ""

    replica = Replica(client)
    replica.sync()
    assert token("/a/") == replica.token
    token("/a/1")
    client.put("/other/4", b"not below")
    assert token("/a/") == replica.token
    held = {"If": f"</a/> (<{replica.token}>)"}
    assert client("PUT", "/a/5", b"", held).status == 201
    assert client("PUT", "/a/6", b"", held).status == 412
    assert token("/a/") != replica.token


def test_the_report_is_announced_but_not_part_of_allprop(client: DavClient) -> None:
    supported = client.propfind("/a/", "supported-report-set").properties()["/a/"]
    _, found = supported[D + "supported-report-set"]
    assert found.find(f"{D}supported-report/{D}report/{D}sync-collection") is not None
    everything = client.propfind("/a/").properties()["/a/"]
    assert not {D + "sync-token", D + "supported-report-set"} & everything.keys()
    names = client("PROPFIND", "/a/", b'<propfind xmlns="DAV:"><propname/></propfind>')
    assert D + "sync-token" in names.properties()["/a/"]


def test_what_cannot_be_reported_is_refused(client: DavClient) -> None:
    sync = b'<sync-collection xmlns="DAV:"><sync-level>%s</sync-level><prop/></sync-collection>'
    refused = client("REPORT", "/a", b'<version-tree xmlns="DAV:"/>')
    assert (refused.status, b"supported-report" in refused.body) == (403, True)
    assert ask(client, "/a/1").status == 403
    assert ask(client, "/none").status == 404
    assert ask(client, "/a", level="2").status == 400
    assert client("REPORT", "/a", sync % b"").status == 400
    older = sync.replace(b"<sync-level>%s</sync-level>", b"")
    assert client("REPORT", "/a", older, {"Depth": "1"}).status == 207


def test_sending_is_no_change(tmp_path: Path) -> None:
    service = RemoteStore(MemoryTree())
    store = MultiprocessingCachingStore(service, 0, cache_dir=tmp_path, write_back_delay=0)
    client = DavClient(store)
    client.mkcol("/a", "/a/b")
    client.put("/a/b/1", b"sent later", Content_Type="text/plain", X_OC_Mtime="1500000000")
    replica = Replica(client)
    replica.sync()
    store.flush()
    assert replica.sync() == {}
    put(service, "/a/b/1", b"foreign")
    assert replica.sync().keys() == {"/a/b/1"}
    store.close()


def test_a_report_takes_one_walk_and_looks_at_what_changed() -> None:
    store = ObservedStore(MemoryStore())
    client = DavClient(store)
    for number in range(40):
        put(store, f"/a/{number}")
    replica = Replica(client)
    replica.sync()
    put(store, "/a/7")
    store.reset()
    replica.sync()
    assert store.calls == {"get_metadata": 2, "get_directory_metadata": 1}


def test_the_tokens_of_a_folder_and_its_members_take_one_walk(client: DavClient) -> None:
    store = ObservedStore(client.store)
    found = DavClient(store).propfind("/", "sync-token", depth="1").properties()
    assert {path for path, props in found.items() if props[D + "sync-token"][0] == 200} == {
        "/",
        "/a/",
        "/other/",
    }
    assert store.calls["get_directory_metadata"] == 1 + 4


@pytest.mark.parametrize("seed", range(20))
def test_replicas_agree_with_the_share_after_any_changes(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    client = DavClient()
    client.mkcol("/a")
    replicas = [Replica(client), Replica(client, limit=2), Replica(client)]
    names = ["/a/x", "/a/y", "/a/x/x", "/a/x/y", "/a/x/y/x", "/a/y/z"]
    for _ in range(60):
        path, other = rng.sample(names, 2)
        change = rng.choice(["PUT", "PUT", "MKCOL", "DELETE", "MOVE", "COPY", "sync"])
        if change == "sync":
            rng.choice(replicas).sync()
        else:
            client(
                change, path, rng.randbytes(4) if change == "PUT" else b"", {"Destination": other}
            )
    for replica in replicas:
        while replica.sync():
            pass
        assert replica.etags == truth(client, "/a")


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=6), st.text(max_size=6))
def test_any_query_is_read_or_refused(token: str, level: str, limit: str, depth: str) -> None:
    values = (escape(re.sub(r"[^ -~\u00a0-\ud7ff]", "", text)) for text in (token, level, limit))
    body = (
        '<sync-collection xmlns="DAV:"><sync-token>{}</sync-token><sync-level>{}</sync-level>'
        "<limit><nresults>{}</nresults></limit><prop/></sync-collection>"
    )
    try:
        query = parse_sync(body.format(*values).encode(), depth)
    except DAVError as error:
        assert error.value == 400
    else:
        assert query.limit is None or query.limit > 0
