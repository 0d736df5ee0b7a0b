"""What a share with write-back must hold and show, and how that is checked.

The rules that use it are in test_write_back_machine.py.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import md5
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from davfusion.cache.metadata_caching_store import REPEATED
from davfusion.cache.pending import ABSENT, FILE, NOTHING
from davfusion.stores import paths
from davfusion.stores.memory import MemoryStore, MemoryTree
from tests.powercut import PowerCut, PowerCutError, Service
from tests.provider.client import DavClient, Reply
from tests.remote import AtomicStore, RemoteStore
from tests.spooled import sizes
from tests.writeback_server import AGE, Server

STORED = ("/a/a", "/a/c.txt", "/a/ü b/a", "/ü b/a/c.txt", "/ü b/a/a", "/c.txt")
MEMORY = Path("/dev/shm")  # noqa: S108 - the disk's own durability is not what is tested
Spot = str | tuple[int, str]
"""A path, or a name in one of the folders that there are."""


@dataclass(frozen=True)
class File:
    """What a file must be; its version and date where they are known, which then stay."""

    body: bytes
    etag: str | None = None
    modified: str | None = None


Tree = dict[str, File | None]
"""Path -> a file, None for a folder; the root is not in it."""


@dataclass
class Contest:
    """A path that a foreign program has changed, until all is sent and seen."""

    theirs: bytes | None
    """What the store has of the foreign, None for nothing."""
    ours: File | None = None
    """What we acknowledged and have perhaps not sent."""
    knowing: bool = False
    """Whether ours was written over what is theirs, and replaces it."""
    copies: list[bytes] = field(default_factory=list)
    """What of ours must be there beside."""


def inside(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def up(path: str) -> str:
    return path.rpartition("/")[0]


def bodies(tree: Tree) -> dict[str, bytes | None]:
    return {path: None if file is None else file.body for path, file in tree.items()}


def is_copy(path: str, of: str) -> bool:
    """Whether `path` is a name that a version of `of` gets which stays beside another."""
    folder, name = up(of), of.rpartition("/")[2]
    stem, extension = (name[:-4], ".txt") if name.endswith(".txt") else (name, "")
    pattern = r" \(conflicted copy \d{4}-\d\d-\d\d [^()/]+\)"
    return bool(re.fullmatch(re.escape(f"{folder}/{stem}") + pattern + re.escape(extension), path))


class WriteBackModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)) / "cache"
        self.folder.mkdir()
        self.now = 4_000_000_000.0
        """In the future: a start prunes what is old by the system's clock."""
        self.tree: Tree = {}
        self.contests: dict[str, Contest] = {}
        self.bodies = 0
        self.power = 0
        """How many changes of the disk and calls of the service from the next request's start."""
        self.littered = False
        """Whether a process has died that leaves something for the next start to remove."""

    @initialize(
        kind=st.sampled_from([RemoteStore, MemoryStore, AtomicStore]),
        there=st.sampled_from([(), STORED, STORED]),
    )
    def start(self, kind: type[MemoryStore], there: Iterable[str]) -> None:
        self.truth = kind(MemoryTree(clock=self.clock))
        for path in there:
            self.tree |= {folder: None for folder in paths.ancestors(path) if folder != "/"}
            body = self.new_body()
            self.tree[path] = File(body)
            self.truth.store_fileobject(BytesIO(body), path)
        self.service = Service(self.truth)
        self.server = Server(self.service, self.folder, self.clock, self.pass_time)

    def clock(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.all_is_sent()
                self.restart(recover=True)
                self.both_workers_show_the_tree()
        finally:
            self.server.remove()
            self.folder.parent.rmdir()

    def restart(self, *, recover: bool) -> None:
        self.server.stop()
        self.server.start(recover=recover)
        self.littered &= not recover

    def at(self, spot: Spot) -> str:
        if isinstance(spot, str):
            return spot
        folders = ["", *sorted(p for p in self.tree if self.is_folder(p) and p.count("/") < 4)]
        return f"{folders[spot[0] % len(folders)]}/{spot[1]}"

    def some(self, number: int) -> str:
        return sorted(self.tree)[number % len(self.tree)]

    def is_folder(self, path: str) -> bool:
        return path == "" or (path in self.tree and self.tree[path] is None)

    def held(self) -> dict[str, bytes | None]:
        return {
            path: None if metadata["is_dir"] else self.truth.get_file(path)
            for path, metadata in self.truth.walk_metadata("/")
        }

    def held_at(self, path: str) -> bytes | None:
        return self.held().get(path)

    def new_body(self, more: bytes = b"") -> bytes:
        self.bodies += 1
        return b"%d:" % self.bodies + more * (1 if self.bodies % 3 else 20_000)

    @contextmanager
    def in_peace(self) -> Iterator[None]:
        """No faults, and nothing meanwhile."""
        faults, self.service.faults = self.service.faults, []
        meanwhile, self.service.meanwhile = self.service.meanwhile, None
        yield
        self.service.faults, self.service.meanwhile = faults, meanwhile

    def calm(self, *touched: str, but: str | None = None) -> None:
        """Have the contests settled that these paths are about, except that of `but` itself."""
        if any(inside(p, t) or inside(t, p) for p in self.contests if p != but for t in touched):
            with self.in_peace():
                self.all_is_sent()

    def until_the_power_fails(self, action: Callable[[], Any]) -> Any:
        """What `action` gives; None where the power failed, and all processes start again."""
        number, self.power = self.power, 0
        if not number:
            return action()
        try:
            with PowerCut(self.folder, number) as cut:
                return action()
        except PowerCutError:
            self.service.meanwhile = None
            self.service.faults = []
            self.server.stop()
            cut.restore()
            self.littered = bool(number % 2)
            self.server.start(recover=not self.littered)
            return None

    def send(self, worker: int, method: str, path: str, **options: Any) -> Reply | None:
        """The answer; None where there was none, or none that says what has become of it."""
        client = self.server.clients[worker]
        if method not in ("GET", "PROPFIND"):
            self.make_known(client, path, options.get("headers", {}).get("Destination", path))
        failed = self.service.failed
        reply: Reply | None = self.until_the_power_fails(lambda: client(method, path, **options))
        if reply is not None and reply.status >= 500:
            assert reply.status == 503, reply
            assert self.service.failed > failed
        return reply

    def make_known(self, client: DavClient, *about: str) -> None:
        """Else a write would be blind where the service fails; that has a rule of its own."""
        with self.in_peace():
            for path in about:
                client.propfind(path)
                client.propfind(up(path) or "/")

    def has_row(self, path: str, body: bytes) -> bool:
        row = self.server.journal.view(path).row
        return row is not None and row.etag == md5(body).hexdigest()  # noqa: S324

    def acknowledged(self, path: str, body: bytes, reply: Reply | None) -> None:
        file = File(body)
        if reply is not None and reply.status in (201, 204):
            file = File(body, reply.headers["etag"], reply.headers["last-modified"])
        self.tree[path] = file
        self.check(path)

    def drop(self, top: str) -> None:
        self.tree = {p: v for p, v in self.tree.items() if not inside(p, top)}

    def carried(self, src: str, dst: str, *, keep: bool) -> Tree:
        moved = {
            dst + p[len(src) :]: file and File(file.body, modified=file.modified)
            for p, file in self.tree.items()
            if inside(p, src)
        }
        gone = (dst,) if keep else (src, dst)
        left = {p: v for p, v in self.tree.items() if not any(inside(p, top) for top in gone)}
        return left | moved

    def version(self, path: str) -> str:
        return self.truth.get_metadata(path)["etag"] if self.truth.exists(path) else ""

    def is_true(self, path: str, shown: Reply) -> bool:
        """Whether what is shown is what the store has."""
        if shown.status == 404:
            return not self.truth.exists(path)
        given = shown.headers["etag"].strip('"')
        return self.server.journal.stored_as(path, given) == self.version(path)

    def may_be_changed_by_others(self, path: str) -> bool:
        """A file, or nothing, in a folder of the store that is not about to be deleted."""
        view = self.server.journal.view(path)
        row = view.row
        return (
            self.truth.exists(up(path) or "/")
            and self.truth.is_dir(up(path) or "/")
            and not (self.truth.exists(path) and self.truth.is_dir(path))
            and not view.hidden
            and not self.is_folder(path)
            and (row is None or (row.kind in (FILE, ABSENT) and row.clears in (NOTHING, FILE)))
        )

    def contested(self, path: str) -> Contest:
        if path not in self.contests:
            row = self.server.journal.view(path).row
            ours = self.tree.pop(path, None)
            self.contests[path] = Contest(None, ours if row else None)
        return self.conclude(path)

    def conclude(self, path: str) -> Contest:
        """The contest, with what has been sent of ours since it was looked at."""
        contest = self.contests[path]
        row = self.server.journal.view(path).row
        if contest.ours is not None and (row is None or row.kind != FILE):
            if contest.theirs is not None and not contest.knowing:
                contest.copies.append(contest.ours.body)
            else:
                contest.theirs = self.held_at(path)
            contest.ours, contest.knowing = None, False
        return contest

    def end_contests(self) -> None:
        """Have all sent and seen; the tree says then what must be left of each."""
        self.server.drain()
        self.now += AGE + REPEATED
        for path, contest in self.contests.items():
            self.judge(path, contest)
        self.contests = {}

    def judge(self, path: str, contest: Contest) -> None:
        held, ours, theirs = self.held(), contest.ours, contest.theirs
        final, copies = None if theirs is None else File(theirs), contest.copies
        if ours is not None and (theirs is None or contest.knowing):
            final = ours
        elif ours is not None:
            copies = [*copies, ours.body]
        found = {p: b for p, b in held.items() if p not in self.tree and is_copy(p, path)}
        assert sorted(b or b"" for b in found.values()) == sorted(copies)
        self.tree |= {p: File(b or b"") for p, b in found.items()}
        assert held.get(path) == (final and final.body)
        if final is not None:
            self.tree[path] = final

    @rule()
    def all_is_sent(self) -> None:
        """The store holds the tree, and of each contest what must be left of it."""
        self.service.faults = []
        self.end_contests()
        assert self.held() == bodies(self.tree)
        self.both_workers_show_the_tree()

    def check_names(self, shown: set[str], concerns: Callable[[str], bool]) -> None:
        assert {p for p in shown if not self.is_contested(p)} == {
            p for p in self.tree if concerns(p)
        }

    def is_contested(self, path: str) -> bool:
        return path not in self.tree and any(path == p or is_copy(path, p) for p in self.contests)

    def check(self, path: str) -> None:
        """Both workers show the path as it must be."""
        file = self.tree.get(path)
        with self.in_peace():
            for client in self.server.clients:
                if path not in self.tree:
                    assert client.propfind(path).status == 404
                elif file is None:
                    assert client.propfind(path).status == 207
                else:
                    reply = client.get(path)
                    assert (reply.status, reply.body) == (200, file.body)
                    found = reply.headers["etag"], reply.headers["last-modified"]
                    file = self.tree[path] = self.learned(file, *found)

    def learned(self, file: File, etag: str, modified: str) -> File:
        assert file.etag in (None, etag)
        assert file.modified in (None, modified)
        return replace(file, etag=etag, modified=modified)

    @rule()
    def both_workers_show_the_tree(self) -> None:
        with self.in_peace():
            for client in self.server.clients:
                found = client.propfind("/", depth="infinity").properties()
                shown = {p.rstrip("/"): props for p, props in found.items() if p != "/"}
                self.check_names(set(shown), lambda _: True)
                for path, file in self.tree.items():
                    props = shown[path]
                    kind = props["{DAV:}resourcetype"][1]
                    assert (kind.find("{DAV:}collection") is not None) == (file is None)
                    if file is not None:
                        etag = props["{DAV:}getetag"][1].text or ""
                        modified = props["{DAV:}getlastmodified"][1].text or ""
                        self.tree[path] = self.learned(file, etag, modified)
            for path in [p for p, file in self.tree.items() if file is not None]:
                self.check(path)

    @invariant()
    def journal_and_spool_agree(self) -> None:
        if not hasattr(self, "server"):
            return
        rows = self.server.journal.below("/")
        [(total,)] = self.server.journal.database.rows("SELECT bytes FROM total")
        assert total == sum(row.bytes for row in rows)
        files = sizes(self.server.spool, with_tmp=not self.littered)
        named = {row.spool: row for row in rows if row.kind == FILE}
        assert all(row.spool is None for row in rows if row.kind != FILE)
        if not self.littered:
            assert files.keys() == named.keys()
        assert all(files[name] >= row.bytes for name, row in named.items() if name in files)
        assert not (self.server.spool / "lost+found").exists()
        for table in ("sending", "hold"):
            assert not self.server.journal.database.rows(f"SELECT * FROM {table}")  # noqa: S608
