"""DELETE (RFC 4918 section 9.6)."""

from wsgidav.dav_error import DAVError

from davfusion.provider.errors import dav_error, translated
from davfusion.provider.request import XML_TYPE, DavRequest, Response, multistatus_body
from davfusion.provider.tree import DavTree
from davfusion.stores import paths
from davfusion.stores.errors import PartialFailureError


def delete(tree: DavTree, request: DavRequest) -> Response:
    """Remove a file, or a folder with all below it."""
    metadata = tree.target(request)
    request.check_whole(is_dir=metadata["is_dir"])
    if request.path == paths.ROOT:
        raise DAVError(403, "The root folder cannot be deleted.")
    tree.check_conditions(request, metadata)
    tree.check_locks(request, request.path, tree=True, membership=True)
    with translated():
        try:
            tree.store.delete(request.path, metadata["is_dir"])
        except PartialFailureError as error:
            return failed_paths(request, error)
    tree.state.forget(request.path)
    return Response(204)


def failed_paths(request: DavRequest, error: PartialFailureError) -> Response:
    """207 with the status of each path that failed; a single one's status for the request's own."""
    if list(error.failures) == [request.path]:
        raise dav_error(error.failures[request.path])
    statuses = {
        request.href(path): dav_error(failure).value for path, failure in error.failures.items()
    }
    return Response(207, [("Content-Type", XML_TYPE)], multistatus_body(statuses))
