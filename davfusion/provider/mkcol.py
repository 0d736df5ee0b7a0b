"""MKCOL (RFC 4918 section 9.3)."""

from wsgidav.dav_error import DAVError

from davfusion.provider.errors import translated
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.tree import DavTree


def mkcol(tree: DavTree, request: DavRequest) -> Response:
    """Make an empty folder in one that exists."""
    if request.has_body():
        raise DAVError(415, "MKCOL takes no body.")
    existing = tree.find_place(request)
    tree.check_conditions(request, existing)
    if existing is not None:
        raise DAVError(405, "The name is taken.")
    tree.check_parent(request.path)
    tree.check_locks(request, request.path, membership=True)
    with translated():
        tree.store.create_directory(request.path)
    return Response(201)
