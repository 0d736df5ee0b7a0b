"""Who may read or change a share: every method, for users who may all, little or nothing (A3)."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from davfusion.config import EVERYBODY, Rights
from davfusion.provider.provider import METHODS, READING, WRITING
from davfusion.provider.shares import Share, Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.store import Store
from davfusion.users import Users, parse_user
from tests.conformance import contents
from tests.provider.client import DavClient, Reply

LOCK = (
    b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
)
UPDATE = (
    b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x xmlns="urn:x:">1</x></D:prop></D:set>'
    b"</D:propertyupdate>"
)
SYNC = (
    b'<D:sync-collection xmlns:D="DAV:"><D:sync-token/><D:sync-level>1</D:sync-level><D:prop>'
    b"<D:getetag/></D:prop></D:sync-collection>"
)
BODIES = {"REPORT": SYNC, "PUT": b"new", "LOCK": LOCK, "PROPPATCH": UPDATE}
PATHS = ("", "/", "/f", "/d", "/d/g", "/new", "/d/new", "/no/new")


class Passwords:
    """Everybody's password is `secret`."""

    def check(self, name: str, password: str, address: str) -> bool:
        del address
        return bool(name) and password == "secret"


@dataclass
class World:
    """A share that is ours, and one that everybody has."""

    stores: dict[str, MemoryStore] = field(default_factory=dict)
    trees: dict[str, DavTree] = field(default_factory=dict)
    shares: Shares = field(init=False)

    def __post_init__(self) -> None:
        rights = {
            "ours": Rights(frozenset({"reader"}), frozenset({"owner"})),
            "open": Rights(None, frozenset({EVERYBODY})),
        }
        for name in rights:
            self.stores[name] = MemoryStore()
            self.trees[name] = DavTree(self.stores[name], State(None))
        self.shares = Shares({n: Share(tree, rights[n]) for n, tree in self.trees.items()})
        for name, user in (("ours", "owner"), ("open", "anybody")):
            client = self.client(user)
            client.mkcol(f"/{name}/d")
            client.put(f"/{name}/f", b"content")
            client.put(f"/{name}/d/g", b"content")

    def client(self, user: str) -> DavClient:
        return DavClient(shares=self.shares, users=Passwords(), user=user)

    def state(self, name: str) -> object:
        """All that a client can change."""
        tree = self.trees[name]
        paths = ["/", "/f", "/d", "/d/g"]
        properties = [tree.state.properties.of(path) for path in paths]
        return contents(tree.store, "/"), tree.state.locks.below("/"), properties


def requests(share: str, other: str) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Every method on everything in `share`, also as the target of what begins in `other`."""
    for path in PATHS:
        for method in (*METHODS, "POST", "NONSENSE"):
            target = {"Destination": f"/{other}/copy"} if method in ("COPY", "MOVE") else {}
            body = BODIES.get(method, b"")
            yield method, f"/{share}{path}", body, target
            if method in ("PROPFIND", "COPY", "LOCK"):
                yield method, f"/{share}{path}", body, {**target, "Depth": "0"}
                yield method, f"/{share}{path}", body, {**target, "Depth": "1"}
            if method == "UNLOCK":
                yield method, f"/{share}{path}", b"", {"Lock-Token": "<opaquelocktoken:x>"}
            yield method, f"/{share}{path}", body, {**target, "If-Match": "*"}
            yield method, f"/{share}{path}", body, {**target, "If-None-Match": "*"}
        for method in ("COPY", "MOVE"):
            for overwrite in "TF":
                headers = {"Destination": f"/{share}{path}", "Overwrite": overwrite}
                yield method, f"/{other}/f", b"", headers


def told(reply: Reply, share: str) -> tuple[int, Mapping[str, str], bytes]:
    """What it tells, but for the name that was asked for."""
    headers = {k: v for k, v in reply.headers.items() if k not in ("date", "content-length")}
    return reply.status, headers, reply.body.replace(share.encode(), b"NAME")


def test_to_a_stranger_a_share_is_what_is_not_there() -> None:
    world = World()
    stranger = world.client("stranger")
    before = world.state("ours")
    hidden, missing = (list(requests(name, "open")) for name in ("ours", "none"))
    for one, other in zip(hidden, missing, strict=True):
        method, path, body, headers = one
        answer = told(stranger(method, path, body, headers), "ours")
        method, path, body, headers = other
        assert answer == told(stranger(method, path, body, headers), "none"), one
        assert answer[0] >= 400 or method == "OPTIONS", one
    assert world.state("ours") == before


@pytest.mark.parametrize("depth", ["0", "1", "infinity"])
def test_the_root_shows_to_each_what_is_his(depth: str) -> None:
    world = World()
    for user, seen in (("owner", True), ("reader", True), ("stranger", False)):
        reply = world.client(user).propfind("/", depth=depth)
        assert (b"ours" in reply.body) == (seen and depth != "0")
        assert (b"ours" in world.client(user).get("/").body) == seen


def test_conditions_tell_a_stranger_nothing() -> None:
    world = World()
    owner, stranger = world.client("owner"), world.client("stranger")
    etag, token = owner.etag("/ours/f"), owner.token("/ours/d/g")
    for condition in (f"[{etag}]", token, f"Not [{etag}]", f"Not {token}"):
        answers = [
            stranger.get("/open/f", If=f"</{name}/{path}> ({condition})").status
            for path in ("f", "d/g")
            for name in ("ours", "none")
        ]
        assert answers in ([412] * 4, [200] * 4), condition
    # A token that is known opens nothing to him.
    headers = {"Destination": "/ours/d/g", "If": f"</ours/d/g> ({token})"}
    assert stranger("COPY", "/open/f", headers=headers).status in (409, 412)


def test_a_reader_reads_and_changes_nothing() -> None:
    world = World()
    reader = world.client("reader")
    before = world.state("ours")
    assert reader.get("/ours/f").body == b"content"
    assert reader.propfind("/ours/", depth="infinity").status == 207
    for method, path, body, headers in requests("ours", "open"):
        if path.startswith("/ours") and method in WRITING - {"COPY"}:
            reply = reader(method, path, body, headers)
            assert reply.status == 403, (method, path, headers, reply)
        elif headers.get("Destination", "").startswith("/ours") and "Depth" not in headers:
            assert reader(method, path, body, headers).status == 403
    assert world.state("ours") == before
    allowed = reader("OPTIONS", "/ours/f").headers["allow"]
    assert allowed == ", ".join(sorted(READING))
    assert reader("POST", "/ours/f").headers["allow"] == allowed


def test_the_root_says_what_can_be_done_in_any_share() -> None:
    """Finder mounts read only where OPTIONS of the root names no locks."""
    tree = DavTree(MemoryStore(), State(None))
    shares = Shares({"a": Share(tree, Rights(frozenset({"reader"}), frozenset({"owner"})))})
    for user, dav in (("owner", "1, 2, 3, "), ("reader", "1, 3"), ("stranger", "1, 3")):
        client = DavClient(shares=shares, users=Passwords(), user=user)
        assert client("OPTIONS", "/").headers["dav"].startswith(dav)


def test_a_reader_takes_copies_away() -> None:
    world = World()
    reader = world.client("reader")
    assert reader("COPY", "/ours/d", headers={"Destination": "/open/mine"}).status == 201
    assert reader.get("/open/mine/g").body == b"content"
    assert reader("MOVE", "/ours/d", headers={"Destination": "/open/gone"}).status == 403
    assert reader.get("/open/gone/g").status == 404


def test_the_owner_does_everything() -> None:
    owner = World().client("owner")
    token = owner.token("/ours/f")
    assert owner("UNLOCK", "/ours/f", headers={"Lock-Token": token}).status == 204
    assert owner.proppatch("/ours/f", "<X:p>1</X:p>").status == 207
    assert owner("MOVE", "/ours/f", headers={"Destination": "/open/f"}).status == 204
    assert owner("DELETE", "/ours/d").status == 204
    assert "LOCK" in owner("OPTIONS", "/ours/").headers["allow"]


def test_a_share_that_nobody_may_change_is_so_for_its_owner() -> None:
    store: Store = MemoryStore()
    tree = DavTree(store, State(None), read_only=True)
    shares = Shares({"a": Share(tree, Rights(None, frozenset({"owner"})))})
    owner = DavClient(shares=shares, users=Passwords(), user="owner")
    assert owner.put("/a/f", b"1").status == 403


def test_a_service_that_can_only_be_read_is_so_for_everybody() -> None:
    """Written back, a write would be acknowledged and never sent."""
    store = FsspecStore("github://org:repo@main")
    client = DavClient(shares=Shares({"/": Share(DavTree(store, State(None)))}))
    for method in ("PUT", "MKCOL", "DELETE", "LOCK", "PROPPATCH"):
        assert client(method, "/f").status == 403, method


def test_nobody_without_a_password_learns_anything() -> None:
    world = World()
    for path in ("/", "/ours/", "/none/"):
        assert world.client("").get(path).status == 401


def test_a_right_password_in_a_crowd_of_guesses_is_not_said_to_be_wrong() -> None:
    waiting, free = threading.Semaphore(0), threading.Event()

    def sleep(_seconds: float) -> None:
        waiting.release()
        free.wait()

    users = Users([parse_user("bob:secret")], sleep=sleep)
    guesses = [
        threading.Thread(target=users.check, args=("bob", "guess", "127.0.0.1")) for _ in range(2)
    ]
    for guess in guesses:
        guess.start()
        waiting.acquire()
    reply = DavClient(users=users, user="bob").get("/")
    free.set()
    for guess in guesses:
        guess.join()
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
