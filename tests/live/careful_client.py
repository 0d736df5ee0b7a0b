"""A client that works in a folder of its own and remembers what it was promised."""

import random
import threading
import time
from collections import deque
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import quote, unquote

from defusedxml.ElementTree import fromstring

from davfusion.stores.paths import ancestors, is_below, join
from tests.live.promises import FOLDER, Change, Node, Tree, at_and_below, differences

D = "{DAV:}"
FILES = ["letter.txt", "a b", "é%", "f1", "f2", "f3", "f4", "f5", "f6", "~f7"]
FOLDERS = ["c d", "ü#", "d1", "d2", "d3"]
"""No name is a file's and then a folder's: of S3's objects `x` and `x/y`, only `x/y` is shown."""
MOST = 30
"""Files and folders of one client; then it deletes."""
DEEPEST = 4
SMALL = 300_000
LARGE = 6_000_000, 20_000_000
PATIENCE = 60
CHANGES = {
    "put": 10, "rewrite": 6, "large": 0.4, "delete": 3, "make": 4, "move": 4, "copy": 3,
    "move folder": 3, "copy folder": 2, "delete folder": 1,
}  # fmt: skip
TRIES, PAUSE = 100, 0.05


class HalfAnsweredError(Exception):
    """The connection broke within an answer."""


class AskedToWaitError(Exception):
    """503: the change may be asked for again later."""


class UnsettledError(Exception):
    """What a killed process has begun at the destination of a COPY or MOVE goes on changing."""


BROKEN = (OSError, HTTPException, HalfAnsweredError)


class Client:
    """`shared` are files outside of its folder that it reads too, and that nobody changes."""

    def __init__(self, port: int, home: str, seed: str, shared: Tree) -> None:
        self.tree: dict[str, Node] = {}
        self.home = home
        self.changes = 0
        """How many have been acknowledged."""
        self._written: set[int] = set()
        self._latest: deque[str] = deque(maxlen=20)
        self._port = port
        self._rng = random.Random(seed)
        self._shared = dict(shared)
        self._unanswered: Change | None = None
        self._connection = self._connect()

    def make_home(self) -> None:
        """The first thing to do."""
        self._carry_out(Change("MKCOL", self.home))

    def work(self) -> Exception:
        """Change and read until the connection breaks or the server is busy; how it ended."""
        while True:
            try:
                self.step()
            except (*BROKEN, AskedToWaitError) as error:
                return error

    def work_on(self, stop: threading.Event) -> None:
        """Change and read until told to stop; what breaks is tried again."""
        while not stop.is_set():
            try:
                self.step()
            except (*BROKEN, AskedToWaitError):
                self._try_again()

    def step(self) -> None:
        """One request."""
        if self._rng.random() < 0.25:
            self._read_a_file()
            return
        change = None
        while change is None:
            (kind,) = self._rng.choices(list(CHANGES), list(CHANGES.values()))
            change = self._change(kind)
        self._carry_out(change)

    def recover(self, *, was_graceful: bool = False, is_settled: bool = True) -> None:
        """Connect anew, and read all: what was acknowledged must be there.

        A change without an answer has been carried out or not; not, if the server was asked to
        stop. Unless `is_settled`, what there is at its destination may change while it is read:
        UnsettledError.
        """
        self._connection.close()
        self._connection = self._connect()
        change = self._unanswered
        seen = self._read_tree(self.home, None if is_settled or not change else change.destination)
        self._unanswered = None
        if change is None or was_graceful:
            broken = differences(seen, self.tree)
        else:
            broken = change.broken_promises(self.tree, seen, self._written)
        assert not broken, (broken, list(self._latest))
        self.tree = seen

    def close(self) -> None:
        self._connection.close()

    def _try_again(self) -> None:
        for _ in range(TRIES):
            with suppress(*BROKEN, AskedToWaitError, UnsettledError):
                change, before = self._unanswered, self.tree
                self.recover(is_settled=False)
                if change is not None and not change.is_seen(before, self.tree):
                    # The store may still be at what the killed process has asked it for.
                    self._carry_out(change, is_repeated=True)
                return
            time.sleep(PAUSE)
        raise AssertionError("no connection lasts")

    def _connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)

    def _ask(
        self, method: str, path: str, content: bytes | None = None, **headers: str
    ) -> tuple[HTTPResponse, bytes]:
        self._connection.request(method, quote(path), content, headers)
        response = self._connection.getresponse()
        try:
            return response, response.read()
        except (OSError, HTTPException) as error:
            raise HalfAnsweredError(method, path) from error

    def _carry_out(self, change: Change, *, is_repeated: bool = False) -> None:
        """Ask for it; what a killed process has put at its destination may have it refused once."""
        self._unanswered = change
        self._latest.append(f"{time.strftime('%X')} {change}")
        self._written.add(Node(change.content).mark)
        headers = {"Destination": quote(change.destination)} if change.destination else {}
        content = change.content if change.method == "PUT" else None
        response, body = self._ask(change.method, change.path, content, **headers)
        if response.status == 503:
            raise AskedToWaitError(change, body)
        if response.status == 412 and is_repeated and change.destination:
            raise UnsettledError(change, body)
        said = (str(change), response.status, body, list(self._latest))
        assert response.status in (201, 204), said
        self._unanswered = None
        self.changes += 1
        self.tree = change.applied(self.tree)
        if change.method == "PUT":
            self.tree[change.path] = Node(change.content, response.headers["ETag"])

    def _read_a_file(self) -> None:
        """Some range of a file."""
        tree = self._rng.choice([self.tree, self.tree, self._shared])
        files = [path for path, node in tree.items() if node.content]
        if not files:
            return
        path = self._rng.choice(files)
        content = tree[path].content or b""
        first = self._rng.randrange(len(content))
        last = self._rng.randrange(first, len(content))
        response, body = self._ask("GET", path, Range=f"bytes={first}-{last}")
        seen = Node(content, response.headers["ETag"])
        assert response.status == 206, (path, response.status, body, list(self._latest))
        assert body == content[first : last + 1], (path, first, last, len(body))
        assert seen.same(tree[path]), (path, seen, tree[path])
        tree[path] = seen

    def _read_tree(self, folder: str, unsettled: str | None = None) -> dict[str, Node]:
        """All there is at and below the path, read whole.

        UnsettledError if it changes meanwhile at or below `unsettled`.
        """
        seen = {}
        for path, etag in self._listed(folder).items():
            if etag is None:
                seen[path] = FOLDER
                continue
            response, body = self._ask("GET", path)
            found = response.status, response.headers["ETag"]
            if found != (200, etag) and unsettled in (path, *ancestors(path)):
                raise UnsettledError(path, found, etag)
            assert found == (200, etag), (path, found, etag, body)
            seen[path] = Node(body, etag)
        return seen

    def _listed(self, folder: str) -> dict[str, str | None]:
        """ETags by path; None for folders."""
        response, body = self._ask("PROPFIND", folder, Depth="infinity")
        if response.status == 404:
            return {}
        assert response.status == 207, (folder, response.status, body)
        found = {}
        for member in fromstring(body).iter(D + "response"):
            path = unquote(member.findtext(D + "href") or "").rstrip("/")
            is_dir = member.find(f".//{D}collection") is not None
            found[path] = None if is_dir else member.findtext(f".//{D}getetag")
        return found

    def _change(self, kind: str) -> Change | None:
        """A change of that kind, if the tree allows one just now."""
        verb, _, what = kind.partition(" ")
        if verb in ("move", "copy"):
            return self._relocation(verb.upper(), is_dir=what == "folder")
        if verb in ("delete", "rewrite"):
            path = self._any(is_dir=what == "folder")
            if path is None:
                return None
            return (
                Change("DELETE", path) if verb == "delete" else Change("PUT", path, self._bytes())
            )
        path = self._new_path(is_dir=verb == "make")
        if len(self.tree) >= MOST or path in self.tree:
            return None
        if verb == "make":
            return Change("MKCOL", path)
        return Change("PUT", path, self._bytes(large=verb == "large"))

    def _relocation(self, method: str, *, is_dir: bool) -> Change | None:
        source, target = self._any(is_dir=is_dir), self._new_path(is_dir=is_dir)
        if source is None or source == target:
            return None
        more = len(at_and_below(self.tree, source)) if method == "COPY" else 0
        is_nested = is_below(target, source) or is_below(source, target)
        if is_nested or len(self.tree) + more > MOST:
            return None
        return Change(method, source, destination=target)

    def _any(self, *, is_dir: bool) -> str | None:
        """A file or folder of ours."""
        paths = [path for path, node in self.tree.items() if node.is_dir == is_dir]
        paths = [path for path in paths if path != self.home]
        return self._rng.choice(paths) if paths else None

    def _new_path(self, *, is_dir: bool) -> str:
        """In one of our folders, of a name that may be taken."""
        folders = [path for path, node in self.tree.items() if node.is_dir]
        folders = [path for path in folders if path.count("/") < DEEPEST]
        return join(self._rng.choice(folders), self._rng.choice(FOLDERS if is_dir else FILES))

    def _bytes(self, *, large: bool = False) -> bytes:
        if large:
            return self._rng.randbytes(self._rng.randrange(*LARGE))
        return self._rng.randbytes(int(SMALL * self._rng.random() ** 3))
