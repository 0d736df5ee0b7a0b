"""StoreProvider: a Store as a wsgidav share. Each DAV method has a module of its own."""

import logging
from collections.abc import Callable, Iterable
from http import HTTPMethod
from typing import Any

from wsgidav.dav_error import DAVError
from wsgidav.dav_provider import DAVProvider

from davfusion.provider.copy_move import copy, move
from davfusion.provider.download import get
from davfusion.provider.errors import ConditionError
from davfusion.provider.locking import lock, unlock
from davfusion.provider.mkcol import mkcol
from davfusion.provider.patch import ACCEPT_PATCH, patch
from davfusion.provider.propfind import propfind
from davfusion.provider.proppatch import proppatch
from davfusion.provider.removal import delete
from davfusion.provider.repeating import answered
from davfusion.provider.report import report
from davfusion.provider.request import XML_TYPE, DavRequest, Response, StartResponse, normal_path
from davfusion.provider.resources import FileResource, FolderResource, resource
from davfusion.provider.root import answer_above
from davfusion.provider.shares import Place, Shares
from davfusion.provider.tree import DavTree
from davfusion.provider.upload import put
from davfusion.provider.xml import DECLARATION

logger = logging.getLogger(__name__)
Method = Callable[[DavTree, DavRequest], Response]


def options(_tree: DavTree, request: DavRequest) -> Response:
    """See _options."""
    return _options(may_write=request.may_write)


def _options(*, may_write: bool) -> Response:
    """What the server can do, also where nothing exists yet (RFC 4918 section 10.1).

    MS-Author-Via makes Windows and Office open files for writing.
    """
    headers = [
        ("DAV", "1, 2, 3, extended-mkcol, sabredav-partialupdate" if may_write else "1, 3"),
        ("Allow", allowed_methods(may_write=may_write)),
        ("MS-Author-Via", "DAV"),
        ("Accept-Ranges", "bytes"),
    ]
    if may_write:
        headers.append(ACCEPT_PATCH)
    return Response(200, headers)


METHODS: dict[str, Method] = {
    "OPTIONS": options,
    "GET": get,
    "HEAD": get,
    "PROPFIND": propfind,
    "PUT": put,
    "DELETE": delete,
    "MKCOL": mkcol,
    "COPY": copy,
    "MOVE": move,
    "PROPPATCH": proppatch,
    "LOCK": lock,
    "UNLOCK": unlock,
    "REPORT": report,
    "PATCH": patch,
}
READING = frozenset({"OPTIONS", "GET", "HEAD", "PROPFIND", "REPORT"})
WRITING = frozenset(METHODS) - READING


def allowed_methods(*, may_write: bool) -> str:
    """The value of an Allow header."""
    return ", ".join(sorted(METHODS if may_write else READING))


class StoreProvider(DAVProvider):  # type: ignore[misc]
    """What wsgidav mounts at the root: all shares; it answers every method itself.

    wsgidav's own handlers lose data or break clients where bodies end early, targets are missing
    or headers are unusual (docs/adr/0002), so none of them is called.
    """

    def __init__(self, shares: Shares) -> None:
        super().__init__()
        self._shares = shares

    def is_readonly(self) -> bool:
        return False

    def get_resource_inst(
        self, path: str, environ: dict[str, Any]
    ) -> FileResource | FolderResource | None:
        place = self._shares.place(DavRequest(environ), normal_path(path.encode()))
        return resource(place.tree, place.request.path, environ) if place else None

    def custom_request_handler(
        self, environ: dict[str, Any], start_response: StartResponse, default_handler: object
    ) -> Iterable[bytes]:
        """Carry out one request; the documented hook for taking over a method."""
        del default_handler
        return self.answer(environ).send(start_response)

    def answer(self, environ: dict[str, Any]) -> Response:
        """The response to one request, errors included."""
        may_write = False
        try:
            request = DavRequest(environ)
            request.shares = self._shares
            place = self._shares.place(request, request.path)
            may_write = place is not None and place.request.may_write
            response = self._carry_out(request, place)
        except DAVError as error:
            response = error_response(error)
            if error.value == 405:  # RFC 9110 section 15.5.6
                response.headers.append(("Allow", allowed_methods(may_write=may_write)))
        except Exception:
            logger.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            response = error_response(DAVError(500, "An error of the server; its log says more."))
        return response.without_body() if environ["REQUEST_METHOD"] == "HEAD" else response

    def _carry_out(self, request: DavRequest, place: Place | None) -> Response:
        method = METHODS.get(request.method)
        if method is None:
            known = request.method in HTTPMethod.__members__
            raise DAVError(405 if known else 501, f"{request.method} is not offered here.")
        if place is None:
            if request.method == "OPTIONS":
                return _options(may_write=self._shares.may_write(request))
            return answer_above(self._shares, request)
        tree, within, memo = place
        # COPY changes the share of its destination, and asks there.
        if request.method in WRITING and request.method != "COPY" and not within.may_write:
            raise DAVError(403, "The share is read-only.")
        if request.method in READING:
            return answered(memo, _spelled(method), tree, within)
        try:
            return _spelled(method)(tree, within)
        finally:
            if within.may_write:
                tree.changed()


def _spelled(method: Method) -> Method:
    """`method`, for a request that names its path as caches, locks and properties know it."""

    def carry_out(tree: DavTree, request: DavRequest) -> Response:
        if request.method != "OPTIONS":
            request.path = tree.canonical_path(request.path)
        return method(tree, request)

    return carry_out


def error_response(error: DAVError) -> Response:
    """The answer that tells a client what was wrong: a precondition code, or a line of text."""
    headers = list(error.add_headers or [])
    if error.value in (204, 304):
        return Response(error.value, headers)
    if error.value >= 500 and error.value not in (501, 502, 507):
        logger.warning("answered %d: %s", error.value, error.context_info)
    if isinstance(error, ConditionError):
        hrefs = "".join(f"<D:href>{href}</D:href>" for href in error.hrefs)
        cause = f"<D:{error.code}>{hrefs}</D:{error.code}>"
        body = f'{DECLARATION}<D:error xmlns:D="DAV:">{cause}</D:error>'
        return Response(error.value, [*headers, ("Content-Type", XML_TYPE)], body.encode())
    text = f"{error.context_info or ''}\n"
    kind = ("Content-Type", "text/plain; charset=utf-8")
    return Response(error.value, [*headers, kind], text.encode(errors="replace"))
