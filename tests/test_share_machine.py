"""A whole share against a dictionary: two workers, one of them at a time, and a foreign writer.

Every request goes through the WSGI application, the caches and the retries, to a service that
fails now and then. What a worker acknowledged is in the store, and reads back on both workers at
once; what the foreign writer did is seen when the listings have reached their age, and is never
overwritten by a conditional write (invariants 1, 2, 4, 6, 9; rows M4, M5, D5, D7).
"""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from davfusion.cache.caching_store import CachingStore
from davfusion.cache.folder import CacheFolder
from davfusion.cache.metadata_caching_store import REPEATED, MetadataCachingStore
from davfusion.provider.state import State
from davfusion.stores.memory import MemoryTree
from davfusion.stores.observed import ObservedStore
from davfusion.stores.retry import RetryPolicy
from davfusion.stores.retrying import RetryingStore
from tests.flaky import Fault, FlakyStore
from tests.provider.client import DavClient
from tests.remote import RemoteStore
from tests.writeback_model import MEMORY

pytestmark = pytest.mark.timeout(900)  # a long profile takes minutes
AGE = 60.0
SEEN = AGE + REPEATED
"""Seconds after which a foreign change is seen."""
NAMES = ("a", "a b", "ü")
FAULTS: list[Fault] = ["before", "half-way", "after", None]
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
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.now = 1_700_000_000.0
        self.truth = RemoteStore(MemoryTree(clock=self.clock))
        self.flaky = FlakyStore(self.truth)
        self.tree: Tree = {}
        self.seen: set[str] = set()
        """Paths that the listings may know something of."""
        self.foreign: dict[str, float] = {}
        """Path -> when another program changed it; forgotten when the change has to be seen."""
        self.replaced: dict[str, list[bytes]] = {}
        """Path -> contents that another program replaced; they may be answered for a while."""
        self.properties: dict[str, str] = {}
        self.clients: list[DavClient] = []

    def clock(self) -> float:
        return self.now

    @initialize()
    def start(self) -> None:
        self.clients = [self.worker() for _ in range(2)]

    def worker(self) -> DavClient:
        """A share as a worker process has it: only files are shared with the other worker."""
        store = RetryingStore(ObservedStore(self.flaky), RetryPolicy(sleep=lambda _: None))
        cache = CacheFolder(self.folder, "test")
        metadata = MetadataCachingStore(store, AGE, listings=cache.listings, clock=self.clock)
        caching = CachingStore(metadata, AGE, cache_id="test", cache_dir=self.folder)
        return DavClient(caching, State(cache.path / "state.sqlite", self.clock))

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.both_workers_show_the_tree()
                self.now += SEEN
                self.every_path_is_as_it_is()
                self.both_workers_show_the_tree()
        finally:
            for client in self.clients:
                client.state.close()
                client.store.close()  # type: ignore[attr-defined]
            shutil.rmtree(self.folder, ignore_errors=True)

    def is_folder(self, path: str) -> bool:
        return path == "" or (path in self.tree and self.tree[path] is None)

    def drop(self, top: str) -> None:
        self.tree = {p: v for p, v in self.tree.items() if not inside(p, top)}
        self.properties = {p: v for p, v in self.properties.items() if not inside(p, top)}

    def held(self) -> Tree:
        return {
            path: None if metadata["is_dir"] else self.truth.get_file(path)
            for path, metadata in self.truth.walk_metadata("/")
        }

    def may_look_old(self, *touched: str) -> bool:
        """Whether an answer about these paths may be that of before a foreign change."""
        self.foreign = {p: at for p, at in self.foreign.items() if self.now < at + SEEN}
        return any(inside(p, f) or inside(f, p) for p in touched for f in self.foreign)

    def send(self, worker: int, method: str, *touched: str, **options: Any) -> tuple[int, bool]:
        """The status of a request, and whether the model tells what it has to be.

        Where it does not, because the share may not know of a foreign change or because a call
        failed in a way that cannot be repeated, the model learns what became of the store.
        """
        self.seen.update(touched)
        old, failed = self.may_look_old(*touched), self.flaky.failed
        status = self.clients[worker](method, touched[0], **options).status
        lost = status == 503 and self.flaky.failed > failed
        assert status < 500 or lost
        if old or lost:
            self.tree = self.held()
        return status, not (old or lost)

    @rule(worker=workers, path=paths_, body=bodies, chunked=st.booleans())
    def put(self, worker: int, path: str, body: bytes, chunked: bool) -> None:
        before = self.tree
        status, certain = self.send(worker, "PUT", path, body=body, chunked=chunked)
        if not certain:
            assert status not in (201, 204) or self.tree[path] == body
        elif not self.is_folder(up(path)):
            assert status == 409
        elif self.is_folder(path):
            assert status == 405
        else:
            assert status == (204 if path in before else 201)
            self.tree[path] = body
        if status in (201, 204):
            assert [client.get(path).body for client in self.clients] == [body, body]

    @rule(worker=workers, path=paths_, body=bodies)
    def put_that_breaks_off(self, worker: int, path: str, body: bytes) -> None:
        headers = {"Content-Length": str(len(body) + 1)}
        before = self.held()
        status, _ = self.send(worker, "PUT", path, body=io.BytesIO(body), headers=headers)
        assert status in (400, 405, 409)
        assert self.held() == before

    @rule(worker=workers, path=paths_)
    def mkcol(self, worker: int, path: str) -> None:
        status, certain = self.send(worker, "MKCOL", path)
        if not certain:
            assert status != 201 or self.is_folder(path)
        elif path in self.tree:
            assert status == 405
        elif not self.is_folder(up(path)):
            assert status == 409
        else:
            assert status == 201
            self.tree[path] = None

    @rule(worker=workers, path=paths_)
    def delete(self, worker: int, path: str) -> None:
        status, certain = self.send(worker, "DELETE", path)
        if certain:
            assert status == (204 if path in self.tree else 404)
            self.drop(path)
        elif status == 204:
            # What a foreign writer has put there, of the other kind, stays.
            left = self.tree
            self.drop(path)
            self.tree = left

    @rule(
        worker=workers,
        method=st.sampled_from(["COPY", "MOVE"]),
        src=paths_,
        dst=paths_,
        overwrite=st.sampled_from(["T", "F"]),
    )
    def transfer(self, worker: int, method: str, src: str, dst: str, overwrite: str) -> None:
        self.carry_out(worker, method, src, dst, overwrite)

    @precondition(lambda self: self.tree)
    @rule(
        worker=workers,
        method=st.sampled_from(["COPY", "MOVE"]),
        data=st.data(),
        dst=paths_,
        faults=st.lists(st.sampled_from(FAULTS), max_size=2),
    )
    def transfer_what_is_there(
        self, worker: int, method: str, data: st.DataObject, dst: str, faults: list[Fault]
    ) -> None:
        self.flaky.faults = faults
        self.carry_out(worker, method, data.draw(st.sampled_from(sorted(self.tree))), dst, "T")

    def carry_out(self, worker: int, method: str, src: str, dst: str, overwrite: str) -> None:
        before = self.held()
        headers = {"Destination": dst, "Overwrite": overwrite}
        status, certain = self.send(worker, method, src, dst, headers=headers)
        existed = dst in self.tree
        if not certain:
            self.check_transfer_by_old_knowledge(status, src, dst, before, keep=method == "COPY")
        elif src not in self.tree:
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

    def check_transfer_by_old_knowledge(
        self, status: int, src: str, dst: str, before: Tree, *, keep: bool
    ) -> None:
        if status in (201, 204):
            moved = {p[len(src) :]: v for p, v in before.items() if inside(p, src)}
            assert {p[len(dst) :]: v for p, v in self.tree.items() if inside(p, dst)} == moved
            after = self.tree
            self.carry_over(src, dst, keep=keep)
            self.tree = after
            # What is said of the kind of the arrived may be as old as what was known of `src`.
            self.foreign |= {src: self.now, dst: self.now}

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
        if not self.may_look_old(path):
            assert reply.status == (207 if path in self.tree else 404)
        if reply.status == 207:
            self.properties[path] = value

    @rule(worker=workers, path=paths_, start=st.integers(0, 50), length=st.integers(1, 20))
    def read_range(self, worker: int, path: str, start: int, length: int) -> None:
        content = self.tree.get(path)
        if content is None:
            return
        header = f"bytes={start}-{start + length - 1}"
        reply = self.clients[worker].get(path, Range=header)
        if self.may_look_old(path) and reply.status in (404, 405):
            return
        versions = [content, *self.replaced.get(path, [])][: None if self.may_look_old(path) else 1]
        expected = [
            (416, None) if start >= len(version) else (206, version[start : start + length])
            for version in versions
        ]
        assert (reply.status, reply.body if reply.status == 206 else None) in expected

    @rule(worker=workers, path=paths_)
    def stat(self, worker: int, path: str) -> None:
        self.seen.add(path)
        reply = self.clients[worker].propfind(path)
        if not self.may_look_old(path):
            assert reply.status == (207 if path in self.tree else 404)

    def every_path_is_as_it_is(self) -> None:
        for path in sorted(self.seen | self.tree.keys()):
            self.stat(0, path)

    @rule(path=paths_, body=bodies)
    def foreign_write(self, path: str, body: bytes) -> None:
        """Seen once the listings have reached their age."""
        if self.is_folder(up(path)) and not self.is_folder(path):
            self.replace_by_foreign(path, body)

    def replace_by_foreign(self, path: str, body: bytes) -> None:
        self.replaced.setdefault(path, []).append(self.tree.get(path) or b"")
        self.truth.store_fileobject(io.BytesIO(body), path)
        self.tree[path] = body
        self.foreign[path] = self.now

    @rule(path=paths_)
    def foreign_delete(self, path: str) -> None:
        if path in self.tree:
            self.truth.delete(path, self.is_folder(path))
            # Nothing told the server, so the properties stay for whatever comes there next.
            self.tree = {p: v for p, v in self.tree.items() if not inside(p, path)}
            self.foreign[path] = self.now

    @precondition(lambda self: any(v is not None for v in self.tree.values()))
    @rule(worker=workers, data=st.data(), body=bodies)
    def a_foreign_edit_is_never_overwritten(
        self, worker: int, data: st.DataObject, body: bytes
    ) -> None:
        """If-Match with the version before the edit fails, however fresh the listings look."""
        path = data.draw(st.sampled_from(sorted(p for p, v in self.tree.items() if v is not None)))
        client = self.clients[worker]
        known = client("HEAD", path)
        if known.status != 200 or "etag" not in known.headers:  # nothing, or a folder
            assert self.may_look_old(path)
            return
        self.replace_by_foreign(path, b"foreign " + body)
        assert client.put(path, b"mine", If_Match=known.headers["etag"]).status == 412

    @rule(seconds=st.sampled_from([0.5, 9.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def the_service_fails_a_while(self, faults: list[Fault]) -> None:
        """Less often in a row than a call is tried."""
        self.flaky.faults = faults

    @rule()
    def both_workers_show_the_tree(self) -> None:
        for client in self.clients:
            found = client.propfind("/", depth="infinity").properties()
            shown = {path.rstrip("/"): props for path, props in found.items() if path != "/"}
            certain = {path for path in self.tree if not self.may_look_old(path)}
            assert {path for path in shown if not self.may_look_old(path)} == certain
            for path in certain:
                self.check_shown(client, path, shown[path])

    def check_shown(
        self, client: DavClient, path: str, props: dict[str, tuple[int, Element]]
    ) -> None:
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
        assert self.held() == self.tree
        assert not list((self.folder / "test" / "spool").glob("*/*"))


ShareMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("DAVFUSION_MACHINE_EXAMPLES", "200")),
    stateful_step_count=30,
    deadline=None,
)
TestShare = ShareMachine.TestCase
