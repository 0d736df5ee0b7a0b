"""A whole share against a dictionary: two workers, one of them at a time, and a foreign writer.

Every request goes through the WSGI application, the caches and the retries. What a worker
acknowledged reads back on both workers at once; what the foreign writer did is seen when the
listings have reached their age (invariants 2, 4, 9; rows M4, M5, D5, D7).
"""

import io
import os
import shutil
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.listings import ListingTable
from davfusion.cache.metadata_caching_store import MetadataCachingStore
from davfusion.provider.state import State
from davfusion.stores.memory import MemoryStore, MemoryTree
from davfusion.stores.observed import ObservedStore
from davfusion.stores.retrying import RetryingStore
from tests.provider.client import DavClient

AGE = 60.0
NAMES = ("a", "b", "a b", "ü")
PROPERTY = "{urn:x:}p"
paths_ = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda n: "/" + "/".join(n))
bodies = st.binary(max_size=40)
workers = st.integers(0, 1)
Tree = dict[str, bytes | None]
"""Path -> content of a file, None for a folder; the root is not in it."""


def inside(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def up(path: str) -> str:
    return path.rpartition("/")[0]


class ShareMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1_700_000_000.0
        self.truth = MemoryStore(MemoryTree(clock=self.clock))
        self.tree: Tree = {}
        self.properties: dict[str, str] = {}
        self.clients: list[DavClient] = []

    def clock(self) -> float:
        return self.now

    @initialize()
    def start(self) -> None:
        self.clients = [self.worker() for _ in range(2)]

    def worker(self) -> DavClient:
        """A share as a worker process has it: only files are shared with the other worker."""
        store = RetryingStore(ObservedStore(self.truth))
        listings = ListingTable(self.folder / "listings.sqlite")
        metadata = MetadataCachingStore(store, AGE, listings=listings, clock=self.clock)
        caching = CachingStore(metadata, AGE, cache_id="test", cache_dir=self.folder)
        return DavClient(caching, State(self.folder / "state.sqlite", self.clock))

    def teardown(self) -> None:
        for client in self.clients:
            client.state.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_folder(self, path: str) -> bool:
        return path == "" or (path in self.tree and self.tree[path] is None)

    def drop(self, top: str) -> None:
        self.tree = {p: v for p, v in self.tree.items() if not inside(p, top)}
        self.properties = {p: v for p, v in self.properties.items() if not inside(p, top)}

    @rule(worker=workers, path=paths_, body=bodies, chunked=st.booleans())
    def put(self, worker: int, path: str, body: bytes, chunked: bool) -> None:
        status = self.clients[worker]("PUT", path, body, chunked=chunked).status
        if not self.is_folder(up(path)):
            assert status == 409
        elif self.is_folder(path):
            assert status == 405
        else:
            assert status == (204 if path in self.tree else 201)
            self.tree[path] = body

    @rule(worker=workers, path=paths_, body=bodies)
    def put_that_breaks_off(self, worker: int, path: str, body: bytes) -> None:
        headers = {"Content-Length": str(len(body) + 1)}
        status = self.clients[worker]("PUT", path, io.BytesIO(body), headers).status
        assert status in (400, 405, 409)

    @rule(worker=workers, path=paths_)
    def mkcol(self, worker: int, path: str) -> None:
        status = self.clients[worker]("MKCOL", path).status
        if path in self.tree:
            assert status == 405
        elif not self.is_folder(up(path)):
            assert status == 409
        else:
            assert status == 201
            self.tree[path] = None

    @rule(worker=workers, path=paths_)
    def delete(self, worker: int, path: str) -> None:
        status = self.clients[worker]("DELETE", path).status
        assert status == (204 if path in self.tree else 404)
        self.drop(path)

    @rule(
        worker=workers,
        method=st.sampled_from(["COPY", "MOVE"]),
        src=paths_,
        dst=paths_,
        overwrite=st.sampled_from(["T", "F"]),
    )
    def transfer(self, worker: int, method: str, src: str, dst: str, overwrite: str) -> None:
        headers = {"Destination": dst, "Overwrite": overwrite}
        status = self.clients[worker](method, src, headers=headers).status
        existed = dst in self.tree
        if src not in self.tree:
            assert status == 404
        elif (inside(dst, src) and (dst == src or self.is_folder(src))) or inside(src, dst):
            assert status == 403
        elif not existed and not self.is_folder(up(dst)):
            assert status == 409
        elif existed and overwrite == "F":
            assert status == 412
        else:
            assert status == (204 if existed else 201)
            self.carry_over(src, dst, keep=method == "COPY")

    def carry_over(self, src: str, dst: str, *, keep: bool) -> None:
        tree = {dst + p[len(src) :]: v for p, v in self.tree.items() if inside(p, src)}
        properties = {dst + p[len(src) :]: v for p, v in self.properties.items() if inside(p, src)}
        self.drop(dst)
        if not keep:
            self.drop(src)
        self.tree |= tree
        self.properties |= properties

    @rule(worker=workers, path=paths_, value=st.text("xyz<&", max_size=4))
    def proppatch(self, worker: int, path: str, value: str) -> None:
        reply = self.clients[worker].proppatch(path, f"<X:p>{escape(value)}</X:p>")
        assert reply.status == (207 if path in self.tree else 404)
        if path in self.tree:
            self.properties[path] = value

    @rule(worker=workers, path=paths_, start=st.integers(0, 50), length=st.integers(1, 20))
    def read_range(self, worker: int, path: str, start: int, length: int) -> None:
        content = self.tree.get(path)
        if content is None:
            return
        header = f"bytes={start}-{start + length - 1}"
        reply = self.clients[worker].get(path, Range=header)
        if start >= len(content):
            assert reply.status == 416
        else:
            assert (reply.status, reply.body) == (206, content[start : start + length])

    @rule(path=paths_, body=bodies)
    def foreign_write(self, path: str, body: bytes) -> None:
        """Seen once the listings have reached their age."""
        if self.is_folder(up(path)) and not self.is_folder(path):
            self.truth.store_fileobject(io.BytesIO(body), path)
            self.tree[path] = body
        self.now += AGE + 1

    @rule(path=paths_)
    def foreign_delete(self, path: str) -> None:
        if path in self.tree:
            self.truth.delete(path, self.is_folder(path))
            # Nothing told the server, so the properties stay for whatever comes there next.
            self.tree = {p: v for p, v in self.tree.items() if not inside(p, path)}
        self.now += AGE + 1

    @precondition(lambda self: any(v is not None for v in self.tree.values()))
    @rule(worker=workers, data=st.data(), body=bodies)
    def a_foreign_edit_is_never_overwritten(
        self, worker: int, data: st.DataObject, body: bytes
    ) -> None:
        """If-Match with the version before the edit fails, however fresh the listings look."""
        path = data.draw(st.sampled_from(sorted(p for p, v in self.tree.items() if v is not None)))
        client = self.clients[worker]
        etag = client.etag(path)
        self.truth.store_fileobject(io.BytesIO(b"foreign " + body), path)
        self.tree[path] = b"foreign " + body
        assert client.put(path, b"mine", If_Match=etag).status == 412
        self.now += AGE + 1

    @rule(seconds=st.sampled_from([0.5, 9.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def both_workers_show_the_tree(self) -> None:
        for client in self.clients:
            found = client.propfind("/", depth="infinity").properties()
            shown = {path.rstrip("/"): props for path, props in found.items() if path != "/"}
            assert set(shown) == set(self.tree)
            for path, props in shown.items():
                content = self.tree[path]
                is_folder = props["{DAV:}resourcetype"][1].find("{DAV:}collection") is not None
                assert is_folder == (content is None)
                if path in self.properties:
                    assert (props[PROPERTY][1].text or "") == self.properties[path]
                if content is not None:
                    assert client.get(path).body == content
                    assert props["{DAV:}getcontentlength"][1].text == str(len(content))

    @invariant()
    def the_store_holds_the_tree_and_nothing_else(self) -> None:
        held = {
            path: None if metadata["is_dir"] else self.truth.get_file(path)
            for path, metadata in self.truth.walk_metadata("/")
        }
        assert held == self.tree
        assert not list((self.folder / "test" / "spool").glob("*/*"))


ShareMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("DAVFUSION_MACHINE_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
)
TestShare = ShareMachine.TestCase
