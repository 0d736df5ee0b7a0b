"""Asides: names beside a path, under which its replacement is built until all of it stands.

They are for a directory that is to replace a file, or a file that is to replace a directory: no
store puts the members of the one below the other.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import uuid4

from davfusion.stores import paths

if TYPE_CHECKING:
    from davfusion.stores.store import Metadata, Store


class Aside(NamedTuple):
    """Where a replacement is built."""

    path: str
    note: "Callable[[str, Metadata], None] | None"
    """To be called with each path of it and what is about to be put there, without an ETag; and
    for a file once more with what is there then."""


class Asides(Protocol):
    """Makes them, and may know what has become of them after a crash."""

    def replacing(self, store: "Store", dst: str, *, is_dir: bool) -> AbstractContextManager[Aside]:
        """Around the building of what takes the place of `dst` of `store` when the block ends.

        If it fails, `dst` stands, and what has been built is removed. `is_dir` is what is built.
        """

    def unfinished(self, path: str, token: str) -> Callable[[bool], None]:
        """A change of `path` has begun that only this process goes on with.

        `token` is for Store.abandon. What is returned is to be called when the process ends
        with it, with whether anything is left.
        """


class UnnotedAsides:
    """Those of a store that has no folder to note them in: a crash leaves them."""

    @contextmanager
    def replacing(self, store: "Store", dst: str, *, is_dir: bool) -> Iterator[Aside]:
        """As Asides."""
        aside = beside(dst)
        try:
            yield Aside(aside, None)
            store.delete(dst, is_dir=not is_dir)
        except BaseException:
            store.delete(aside, is_dir)
            raise
        store.move(aside, dst)

    def unfinished(self, path: str, token: str) -> Callable[[bool], None]:
        """As Asides."""
        del path, token
        return lambda _is_left: None


def beside(path: str) -> str:
    """A name that nobody else has, in the same directory."""
    return paths.join(paths.parent(path), f".davfusion-{uuid4().hex}")
