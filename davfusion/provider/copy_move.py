"""COPY and MOVE (RFC 4918 sections 9.8 and 9.9), carried out by the store.

Between two shares the content goes through this machine, file by file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wsgidav.dav_error import DAVError

from davfusion.provider.errors import translated
from davfusion.provider.removal import failed_paths
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.stores import paths
from davfusion.stores.errors import AlreadyExistsError, PartialFailureError
from davfusion.stores.store import Metadata
from davfusion.stores.streams import transfer_options
from davfusion.stores.transfer import copy_between, move_between

_EXISTS = "The destination exists, and Overwrite is F."
_OVERTAKEN = "Somebody else has just put something at the destination."


@dataclass(frozen=True)
class Transfer:
    """A checked COPY or MOVE, from `src` of `source` to `dst` of `target`."""

    source: DavTree
    src: str
    target: DavTree
    dst: str
    is_dir: bool
    replaced: Metadata | None
    replace: bool
    """Else it is refused where anything turns out to be."""

    @property
    def is_within(self) -> bool:
        """Whether it stays in one share."""
        return self.source is self.target

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """What others have made there meanwhile stays (RFC 4918 sections 9.8.4 and 9.9.3)."""
        try:
            yield
        except AlreadyExistsError as error:
            if self.replace:  # RFC 9110 section 15.5.10: asked again, it may well be done
                raise DAVError(409, _OVERTAKEN) from error
            raise DAVError(412, _EXISTS) from error
        finally:
            self.target.changed()

    def succeed(self) -> Response:
        """Locks on members of what was replaced end with them (RFC 4918 section 9.9.3)."""
        if self.replaced:
            self.target.state.locks.remove_below(self.dst)
        return Response(204 if self.replaced else 201)

    def copy(self) -> None:
        """A file, or a folder with all below it."""
        source, target = self.source.store, self.target.store
        if self.is_within:
            source.duplicate(self.src, self.dst, **transfer_options(replace=self.replace))
        else:
            copy_between(source, self.src, target, self.dst, replace=self.replace)

    def copy_folder_alone(self) -> None:
        """The folder without what is in it."""
        if self.replaced:
            self.target.store.delete(self.dst, self.replaced["is_dir"])
            self.target.state.properties.remove_tree(self.dst)
        self.target.store.create_directory(self.dst)

    def move(self) -> None:
        """A file, or a folder with all below it."""
        source, target = self.source.store, self.target.store
        if self.is_within:
            source.move(self.src, self.dst, **transfer_options(replace=self.replace))
        else:
            move_between(source, self.src, target, self.dst, replace=self.replace)

    def copied(self, error: PartialFailureError | None = None, *, tree: bool = True) -> None:
        """Properties go along, but for those of what could not be copied."""
        failed = error.failures if error else ()
        self.source.state.copied(self.src, self.dst, self.target.state, tree=tree, failed=failed)

    def moved(self) -> None:
        """All properties go along."""
        self.source.state.moved(self.src, self.dst, self.target.state)


def copy(tree: DavTree, request: DavRequest) -> Response:
    """Copy a file, a folder alone (Depth 0) or a folder with all below it."""
    depth = request.depth("infinity", "0", "infinity")
    transfer = _checked(tree, request)
    whole = depth == "infinity" or not transfer.is_dir
    with translated(), transfer.under_way():
        try:
            if whole:
                transfer.copy()
            else:
                transfer.copy_folder_alone()
        except PartialFailureError as error:
            transfer.copied(error)
            return failed_paths(request, error)
    transfer.copied(tree=whole)
    return transfer.succeed()


def move(tree: DavTree, request: DavRequest) -> Response:
    """Rename or move a file, or a folder with all below it."""
    transfer = _checked(tree, request)
    with translated(), transfer.under_way():
        try:
            transfer.move()
        except PartialFailureError as error:
            transfer.copied(error)
            return failed_paths(request, error)
    transfer.moved()
    return transfer.succeed()


def _checked(tree: DavTree, request: DavRequest) -> Transfer:
    source = tree.target(request)
    tree.check_conditions(request, source)
    target, there = _destination(request)
    if target is not tree and there.path == paths.ROOT:
        raise DAVError(403, "A share cannot be replaced.")
    src, dst = request.path, there.path
    if target is not tree:  # two shares may show the same folder, or one a folder of the other
        src, dst = tree.store.location(src), target.store.location(dst)
    _check_apart(src, dst, source)
    replaced = target.presumed(there.path)
    if replaced is None:
        target.check_parent(there.path)
    elif not request.overwrite:
        raise DAVError(412, _EXISTS)
    if request.method == "MOVE":
        _check_movable(tree, request, source)
    target.check_locks(there, there.path, tree=True, membership=not replaced)
    ends = tree, request.path, target, there.path
    return Transfer(*ends, source["is_dir"], replaced, request.overwrite)


def _destination(request: DavRequest) -> tuple[DavTree, DavRequest]:
    """Where it goes, which the user must be able to change."""
    path = request.destination
    place = request.shares.place(request, path)
    if place is None:
        is_new_share = paths.parent(path) == paths.ROOT
        raise DAVError(403 if is_new_share else 409, "There is no share for the destination.")
    if not place.request.may_write:
        raise DAVError(403, "The share is read-only.")
    tree, there, _ = place
    given, there.path = there.path, tree.canonical_path(there.path)
    if request.method == "MOVE" and (there.prefix, there.path) == (request.prefix, request.path):
        # Where case does not matter, a file can be given another one.
        there.path = paths.join(paths.parent(there.path), paths.name(given))
    return tree, there


def _check_apart(src: str, dst: str, source: Metadata) -> None:
    if src == dst:
        raise DAVError(403, "Source and destination are the same.")
    if paths.is_below(dst, src) and source["is_dir"]:
        raise DAVError(403, "The destination lies inside the source.")
    if paths.is_below(src, dst):
        raise DAVError(403, "The source lies inside the destination, which would be replaced.")


def _check_movable(tree: DavTree, request: DavRequest, source: Metadata) -> None:
    if request.path == paths.ROOT:
        raise DAVError(403, "A share cannot be moved.")
    request.check_whole(is_dir=source["is_dir"])
    tree.check_locks(request, request.path, tree=True, membership=True)
