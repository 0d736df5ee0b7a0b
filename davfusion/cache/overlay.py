"""What clients see: the journal's rows over what the store has."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, TypeVar

from davfusion.cache.block_caching_store import BlockCachingStore
from davfusion.cache.journal import Journal
from davfusion.cache.journal_change import Change, OvertakenError
from davfusion.cache.pending import ABSENT, DIRECTORY, FILE, NOTHING, Held, View
from davfusion.stores import paths
from davfusion.stores.store import (
    Metadata,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    TransientStoreError,
)

T = TypeVar("T")
_ATTEMPTS: Final = 100


class Overlay:
    """`journal` over `store`, which answers from a cache where it can."""

    def __init__(self, journal: Journal, store: BlockCachingStore) -> None:
        self._journal = journal
        self._store = store

    def metadata(self, path: str) -> Metadata:
        """Of what is to be seen at the path; NoSuchFilesytemObjectError."""
        view = self._journal.seen(path)
        if view.row is not None and view.row.kind != ABSENT:
            return view.row.metadata
        if view.row is not None or view.hidden:
            raise NoSuchFilesytemObjectError(path)
        return self._journal.seen_as(path, self._store.get_metadata(path))

    def children(self, directory: str) -> dict[str, Metadata]:
        """Name -> metadata of all that is to be seen in the directory."""
        # The rows first: one that reaches the store meanwhile is in one of the two.
        view, rows, aliases = self._journal.listing(directory)
        if view.row is not None and view.row.kind != DIRECTORY:
            raise NoSuchFilesytemObjectError(directory)
        found = self._stored_children(view)
        for name, known_as in aliases.items():
            if name in found:
                found[name] = known_as.applied(found[name])
        for row in rows:
            found.pop(paths.name(row.path), None)
            if row.kind != ABSENT:
                found[paths.name(row.path)] = row.metadata
        return found

    def is_there(self, path: str) -> bool:
        """Whether there is something to be seen at the path, or something waits to be deleted."""
        if self._journal.seen(path).row is not None:
            return True
        try:
            self.metadata(path)
        except NoSuchFilesytemObjectError:
            return False
        return True

    def names_like(self, directory: str, name: str) -> Iterator[str]:
        """As spelling.canonical wants it, with what waits to be deleted there."""
        _, rows, _ = self._journal.listing(directory)
        yield from (paths.name(row.path) for row in rows)
        if not self.is_hidden(directory):
            yield from self._store.names_like(directory, name)

    def _stored_children(self, view: View) -> dict[str, Metadata]:
        if view.hidden and view.row is None:
            raise NoSuchFilesytemObjectError(view.path)
        if view.hidden or (view.row is not None and view.row.hides_below):
            return {}
        try:
            return dict(self._store.get_directory_metadata(view.path))
        except NoSuchFilesytemObjectError:
            if view.row is None:
                raise
            return {}

    def is_hidden(self, directory: str) -> bool:
        """Whether nothing that the store has below is to be seen."""
        view = self._journal.seen(directory)
        return view.hidden or (view.row is not None and view.row.hides_below)

    def held(self, view: View, *, strict: bool = True) -> Held:
        """What is to be seen of the store at the path: nothing where a row hides it.

        Where the store cannot be asked, TransientStoreError, or if not `strict`: nothing. Then a
        version that there is after all will stay, beside the one that is to be stored.
        """
        if view.hidden or (view.row is not None and view.row.hides_below):
            return Held(NOTHING)
        try:
            stored = self._store.get_metadata(view.path)
        except NoSuchFilesytemObjectError:
            return Held(NOTHING)
        except TransientStoreError:
            if strict and view.row is None:
                raise
            return Held(NOTHING)
        if stored["is_dir"]:
            return Held(DIRECTORY)
        given = self._journal.seen_as(view.path, stored).get("etag")
        return Held(FILE, stored.get("etag"), given)

    def change(
        self,
        path: str,
        decide: Callable[[Change, View, Held], T],
        *,
        strict: bool = False,
        with_parents: bool = True,
    ) -> T:
        """What `decide` makes of the path, in one transaction; `with_parents` the directories too.

        It is called again if the path has changed while the store was asked.
        """
        for _ in range(_ATTEMPTS):
            view = self._journal.view(path)
            held = self.held(view, strict=strict)
            missing = self.missing_above(path) if with_parents else []
            with suppress(OvertakenError), self._journal.change() as change:
                change.require(view)
                change.make_directories(missing)
                return decide(change, view, held)
        raise TransientStoreError(f"{path} keeps changing")

    def missing_above(self, path: str) -> list[str]:
        """The directories above that are not there, the outermost first."""
        missing: list[str] = []
        for directory in paths.ancestors(path):
            if directory == paths.ROOT or self._is_directory(directory):
                break
            missing.append(directory)
        return missing[::-1]

    def _is_directory(self, path: str) -> bool:
        """False for nothing; a directory is taken for granted where the store cannot be asked."""
        try:
            is_dir = self.metadata(path)["is_dir"]
        except NoSuchFilesytemObjectError:
            return False
        except TransientStoreError:
            return True
        if not is_dir:
            raise StoreAccessError(f"{path} is a file", 409)
        return True


def kind_of(view: View, held: Held) -> str:
    """What is to be seen at a path: NOTHING, FILE or DIRECTORY."""
    if view.row is None:
        return held.kind
    return NOTHING if view.row.kind == ABSENT else view.row.kind


def version_of(view: View, held: Held) -> str | None:
    """The ETag that clients know, "" where they see no file, None where it has none."""
    if kind_of(view, held) != FILE:
        return ""
    return view.row.etag if view.row is not None else held.given
