"""The root above several shares, which is in no store, and what is in no share at all."""

import hashlib
from typing import Final

from wsgidav.dav_error import DAVError

from davfusion.provider.download import get
from davfusion.provider.propfind import propfind_shares
from davfusion.provider.request import DavRequest, Response
from davfusion.provider.shares import Shares
from davfusion.provider.state import State
from davfusion.provider.tree import DavTree
from davfusion.stores import paths
from davfusion.stores.memory import MemoryStore, MemoryTree

_STATE: Final = State(None)
"""No locks, and no properties of clients."""


def answer_above(shares: Shares, request: DavRequest) -> Response:
    """The answer where there is no share: in the root, which lists them, or nowhere."""
    if request.path != paths.ROOT or request.method not in ("GET", "HEAD", "PROPFIND"):
        raise DAVError(*_refusal(request))
    visible = shares.visible(request)
    tags = ((mount, place.request.folder_etag) for mount, place in visible.items())
    request.folder_etag = hashlib.sha256(repr(sorted(tags)).encode()).hexdigest()[:32]
    if request.method == "PROPFIND":
        return propfind_shares([place[:2] for place in visible.values()], request)
    listing = MemoryStore(MemoryTree(clock=lambda: 0.0))
    for mount in visible:
        listing.create_directory(mount)
    return get(DavTree(listing, _STATE, read_only=True), request)


def _refusal(request: DavRequest) -> tuple[int, str]:
    """The answer to what is asked of the root itself, or of what is in no share."""
    is_making = request.method in ("PUT", "MKCOL", "LOCK")
    if request.path == paths.ROOT or (is_making and paths.parent(request.path) == paths.ROOT):
        return 403, "The root holds the shares, and nothing else."
    if is_making:
        return 409, "The parent folder does not exist."
    return 404, "There is no such file or folder."
