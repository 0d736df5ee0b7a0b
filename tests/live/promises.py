"""What a client may expect to find, given what has been acknowledged to it.

Pure: a tree, the changes that clients ask for, and what may be there after a change that nobody
has answered.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from davfusion.stores.paths import is_below


@dataclass(frozen=True)
class Node:
    """A file, or a folder, which has no content; an ETag of None has not been seen yet."""

    content: bytes | None
    etag: str | None = None

    @property
    def is_dir(self) -> bool:
        return self.content is None

    @property
    def mark(self) -> int:
        """Of the content."""
        return hash(self.content)

    def same(self, promised: "Node | None") -> bool:
        """Whether this is what was promised."""
        if promised is None or self.content != promised.content:
            return False
        return promised.etag in (None, self.etag)

    def __repr__(self) -> str:
        size = "folder" if self.content is None else f"{len(self.content)} bytes"
        return f"<{size} {self.etag}>"


FOLDER = Node(None)
Tree = Mapping[str, Node]


def at_and_below(tree: Tree, path: str) -> dict[str, Node]:
    return {at: node for at, node in tree.items() if at == path or is_below(at, path)}


def without(tree: Tree, *paths: str) -> dict[str, Node]:
    """The tree without the paths and all below them."""
    return {
        at: node
        for at, node in tree.items()
        if not any(at == path or is_below(at, path) for path in paths)
    }


def differences(seen: Tree, promised: Tree) -> list[str]:
    """Where what is seen is not what was promised."""
    return [
        f"{path}: {seen.get(path)} for {promised.get(path)}"
        for path in sorted({*seen, *promised})
        if path not in seen or not seen[path].same(promised.get(path))
    ]


@dataclass(frozen=True)
class Change:
    """A request of a client that changes its tree."""

    method: str
    path: str
    content: bytes = b""
    destination: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.destination or len(self.content)}"

    def applied(self, tree: Tree) -> dict[str, Node]:
        """The tree when it has been carried out."""
        if self.method == "PUT":
            return {**tree, self.path: Node(self.content)}
        if self.method == "MKCOL":
            return {**tree, self.path: FOLDER}
        if self.method == "DELETE":
            return without(tree, self.path)
        cut = len(self.path)
        copies = {
            self.destination + at[cut:]: replace(node, etag=None)
            for at, node in at_and_below(tree, self.path).items()
        }
        gone = [self.destination, self.path] if self.method == "MOVE" else [self.destination]
        return without(tree, *gone) | copies

    def is_seen(self, before: Tree, seen: Tree) -> bool:
        """Whether it has been carried out as a whole, by the look of it."""
        return bool(differences(seen, before)) and not differences(seen, self.applied(before))

    def broken_promises(self, before: Tree, seen: Tree, written: Set[int]) -> list[str]:
        """What may not be seen after the change has been begun and perhaps carried out.

        A change is carried out or not. Only of a MOVE or COPY that is not, some copies may stand
        already; its source does anyway, and a file that was to be replaced until its copy stands.
        The copies of a folder are made from what the store has, which may be behind, and replace
        all at the destination; `written` has the marks of all contents there ever were.
        """
        after = self.applied(before)
        undone, done = differences(seen, before), differences(seen, after)
        if not (undone and done) or (self.destination and self._is_begun(before, seen, written)):
            return []
        return [*undone, "nor", *done]

    def _is_begun(self, before: Tree, seen: Tree, written: Set[int]) -> bool:
        target = self.destination
        if differences(without(seen, target), without(before, target)):
            return False
        if before[self.path].is_dir:
            return all(
                node.is_dir or node.mark in written or node.same(before.get(path))
                for path, node in at_and_below(seen, target).items()
            )
        stands = seen.get(target, FOLDER)
        return stands.same(before.get(target)) or stands.same(self.applied(before)[target])
