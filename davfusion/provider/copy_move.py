"""COPY and MOVE (RFC 4918 sections 9.8 and 9.9), carried out by the store."""

from dataclasses import dataclass

from wsgidav.dav_error import DAVError

from davfusion.provider.errors import translated
from davfusion.provider.removal import failed_paths
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.stores import paths
from davfusion.stores.errors import PartialFailureError
from davfusion.stores.store import Metadata


@dataclass(frozen=True)
class Transfer:
    """A checked COPY or MOVE."""

    src: str
    dst: str
    source: Metadata
    replaced: Metadata | None

    @property
    def success(self) -> Response:
        return Response(204 if self.replaced else 201)


def copy(tree: DavTree, request: DavRequest) -> Response:
    """Copy a file, a folder alone (Depth 0) or a folder with all below it."""
    depth = request.depth("infinity", "0", "infinity")
    transfer = _checked(tree, request)
    tree.check_locks(request, transfer.dst, tree=True, membership=not transfer.replaced)
    whole = depth == "infinity" or not transfer.source["is_dir"]
    with translated():
        try:
            if whole:
                tree.store.duplicate(transfer.src, transfer.dst)
            else:
                _copy_folder_alone(tree, transfer)
        except PartialFailureError as error:
            tree.state.copied(transfer.src, transfer.dst, failed=error.failures)
            return failed_paths(request, error)
    tree.state.copied(transfer.src, transfer.dst, tree=whole)
    return transfer.success


def move(tree: DavTree, request: DavRequest) -> Response:
    """Rename or move a file, or a folder with all below it."""
    transfer = _checked(tree, request)
    if transfer.source["is_dir"]:
        request.depth("infinity", "infinity")
    tree.check_locks(request, transfer.src, tree=True, membership=True)
    tree.check_locks(request, transfer.dst, tree=True, membership=not transfer.replaced)
    with translated():
        try:
            tree.store.move(transfer.src, transfer.dst)
        except PartialFailureError as error:
            tree.state.copied(transfer.src, transfer.dst, failed=error.failures)
            return failed_paths(request, error)
    tree.state.moved(transfer.src, transfer.dst)
    return transfer.success


def _checked(tree: DavTree, request: DavRequest) -> Transfer:
    src, dst = request.path, request.destination
    if src == dst and request.method == "MOVE":
        dst = request.new_name  # where case does not matter, a file can be given another one
    source = tree.target(request)
    tree.check_conditions(request, source)
    if src == dst:
        raise DAVError(403, "Source and destination are the same.")
    if paths.is_below(dst, src) and source["is_dir"]:
        raise DAVError(403, "The destination lies inside the source.")
    if paths.is_below(src, dst):
        raise DAVError(403, "The source lies inside the destination, which would be replaced.")
    replaced = tree.presumed(dst)
    if replaced is None:
        tree.check_parent(dst)
    elif not request.overwrite:
        raise DAVError(412, "The destination exists, and Overwrite is F.")
    return Transfer(src, dst, source, replaced)


def _copy_folder_alone(tree: DavTree, transfer: Transfer) -> None:
    if transfer.replaced:
        tree.store.delete(transfer.dst, transfer.replaced["is_dir"])
        tree.state.properties.remove_tree(transfer.dst)
    tree.store.create_directory(transfer.dst)
