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
from davfusion.provider.repeating import answered, memo_for
from davfusion.provider.report import report
from davfusion.provider.request import XML_TYPE, DavRequest, Response, StartResponse, normal_path
from davfusion.provider.resources import FileResource, FolderResource, resource
from davfusion.provider.tree import DavTree
from davfusion.provider.upload import put
from davfusion.provider.xml import DECLARATION

logger = logging.getLogger(__name__)
Method = Callable[[DavTree, DavRequest], Response]


def options(tree: DavTree, _request: DavRequest) -> Response:
    """What the server can do, also where nothing exists yet (RFC 4918 section 10.1).

    MS-Author-Via makes Windows and Office open files for writing.
    """
    headers = [
        ("DAV", "1, 3" if tree.read_only else "1, 2, 3, extended-mkcol, sabredav-partialupdate"),
        ("Allow", allowed_methods(tree)),
        ("MS-Author-Via", "DAV"),
        ("Accept-Ranges", "bytes"),
    ]
    if not tree.read_only:
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


def allowed_methods(tree: DavTree) -> str:
    """The value of an Allow header."""
    return ", ".join(sorted(READING if tree.read_only else METHODS))


class StoreProvider(DAVProvider):  # type: ignore[misc]
    """The share that wsgidav mounts; it answers every method itself.

    wsgidav's own handlers lose data or break clients where bodies end early, targets are missing
    or headers are unusual (docs/adr/0002), so none of them is called.
    """

    def __init__(self, tree: DavTree) -> None:
        super().__init__()
        self._tree = tree
        self._memo = memo_for(tree)

    def is_readonly(self) -> bool:
        return self._tree.read_only

    def get_resource_inst(
        self, path: str, environ: dict[str, Any]
    ) -> FileResource | FolderResource | None:
        return resource(self._tree, normal_path(path.encode()), environ)

    def custom_request_handler(
        self, environ: dict[str, Any], start_response: StartResponse, default_handler: object
    ) -> Iterable[bytes]:
        """Carry out one request; the documented hook for taking over a method."""
        del default_handler
        return self.answer(environ).send(start_response)

    def answer(self, environ: dict[str, Any]) -> Response:
        """The response to one request, errors included."""
        try:
            request = DavRequest(environ)
            response = self._carry_out(request)
        except DAVError as error:
            response = error_response(error)
            if error.value == 405:  # RFC 9110 section 15.5.6
                response.headers.append(("Allow", allowed_methods(self._tree)))
        except Exception:
            logger.exception("%s %s failed", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            response = error_response(DAVError(500, "An error of the server; its log says more."))
        return response.without_body() if environ["REQUEST_METHOD"] == "HEAD" else response

    def _carry_out(self, request: DavRequest) -> Response:
        method = METHODS.get(request.method)
        if method is None:
            known = request.method in HTTPMethod.__members__
            raise DAVError(405 if known else 501, f"{request.method} is not offered here.")
        if self._tree.read_only and request.method in WRITING:
            raise DAVError(403, "The share is read-only.")
        return answered(self._memo, _spelled(method), self._tree, request)


def _spelled(method: Method) -> Method:
    """`method`, for a request that names all paths as caches, locks and properties know them."""

    def carry_out(tree: DavTree, request: DavRequest) -> Response:
        if request.method != "OPTIONS":
            request.spell(tree.canonical_path)
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
