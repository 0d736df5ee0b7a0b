"""LOCK and UNLOCK (RFC 4918 sections 9.10 and 9.11)."""

import io
import re
from typing import Final

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.conditions import parse_if, submitted_tokens
from davfusion.provider.errors import translated
from davfusion.provider.live_properties import active_lock
from davfusion.provider.locks import Lock, LockedError
from davfusion.provider.request import XML_TYPE, DavRequest, Response
from davfusion.provider.tree import DavTree, locked
from davfusion.provider.xml import DAV
from davfusion.stores.store import ABSENT

DEFAULT_SECONDS: Final = 3600
LONGEST_SECONDS: Final = 7 * 24 * 3600
"""For `Infinite` and all longer wishes: a client that never returns must not lock for ever."""
_SECONDS = re.compile(r"Second-(\d{1,12})", re.IGNORECASE)
_CODED_URL = re.compile(r"\s*(?:<([^<>]+)>|([^<>\s]+))\s*")  # npm's webdav leaves the <> out


def parse_timeout(header: str | None) -> int:
    """Seconds granted for a Timeout header: its first wish that can be read (section 10.7)."""
    for wish in (header or "").split(","):
        if wish.strip().lower() == "infinite":
            return LONGEST_SECONDS
        if match := _SECONDS.fullmatch(wish.strip()):
            return min(max(1, int(match[1])), LONGEST_SECONDS)
    return DEFAULT_SECONDS


def parse_lockinfo(body: bytes) -> tuple[bool, str]:
    """(exclusive?, owner XML) of a lockinfo element."""
    root = xml.parse(body)
    if root.tag != DAV + "lockinfo":
        raise DAVError(400, "The body is not a lockinfo element.")
    if root.find(f"{DAV}locktype/{DAV}write") is None:
        raise DAVError(422, "Only write locks can be had.")
    scopes = [scope.tag for scope in root.findall(f"{DAV}lockscope/*")]
    if scopes not in ([DAV + "exclusive"], [DAV + "shared"]):
        raise DAVError(400, "A lock is either exclusive or shared.")
    owner = root.find(DAV + "owner")
    return scopes == [DAV + "exclusive"], "" if owner is None else xml.inner(owner)


def lock(tree: DavTree, request: DavRequest) -> Response:
    """Grant a lock, on a name not yet taken with an empty file made for it, or refresh one."""
    body = request.body()
    if not body.strip():
        return _refresh(tree, request)
    depth = request.depth("infinity", "0", "infinity")
    is_exclusive, owner = parse_lockinfo(body)
    metadata = tree.find_target(request)
    if metadata is None:
        tree.check_parent(request.path)
    tree.check_conditions(request, metadata)
    if metadata is None:
        tree.check_locks(request, request.path, membership=True)
    try:
        granted = tree.state.locks.acquire(
            request.path,
            is_exclusive=is_exclusive,
            is_deep=depth == "infinity",
            owner=owner,
            principal=request.user,
            seconds=parse_timeout(request.header("Timeout")),
        )
    except LockedError as error:
        raise locked(request, error, "no-conflicting-lock") from error
    if metadata is None:
        _create_empty(tree, request, granted)
    headers = [("Lock-Token", f"<{granted.token}>")]
    return _granted(tree, request, granted, 200 if metadata else 201, headers)


def _create_empty(tree: DavTree, request: DavRequest, granted: Lock) -> None:
    """Section 7.3: a lock on an unmapped URL makes an empty file."""
    try:
        with translated():
            tree.store.store_fileobject(io.BytesIO(), request.path, if_etag=ABSENT)
    except DAVError:
        tree.state.locks.release(request.path, granted.token, request.user)
        raise


def _refresh(tree: DavTree, request: DavRequest) -> Response:
    header = request.header("If")
    if header is None:
        raise DAVError(400, "A LOCK needs a body, or an If header to refresh a lock.")
    tree.check_conditions(request, tree.target(request))
    tokens = submitted_tokens(parse_if(header))
    seconds = parse_timeout(request.header("Timeout"))
    try:
        refreshed = tree.state.locks.refresh(request.path, tokens, request.user, seconds)
    except LookupError as error:
        raise DAVError(412, "There is no such lock to refresh.") from error
    return _granted(tree, request, refreshed, 200, [])


def _granted(
    tree: DavTree,
    request: DavRequest,
    granted: Lock,
    status: int,
    headers: list[tuple[str, str]],
) -> Response:
    active = active_lock(granted, request.href(granted.root), tree.clock())
    body = (
        f'{xml.DECLARATION}<D:prop xmlns:D="DAV:">'
        f"<D:lockdiscovery>{active}</D:lockdiscovery></D:prop>"
    )
    return Response(status, [*headers, ("Content-Type", XML_TYPE)], body.encode())


def unlock(tree: DavTree, request: DavRequest) -> Response:
    """End the lock that the Lock-Token header names."""
    match = _CODED_URL.fullmatch(request.header("Lock-Token") or "")
    if match is None:
        raise DAVError(400, "Lock-Token is missing or cannot be read.")
    tree.check_conditions(request, tree.target(request))
    try:
        released = tree.state.locks.release(request.path, match[1] or match[2], request.user)
    except PermissionError as error:
        raise DAVError(403, "The lock belongs to another user.") from error
    if not released:
        raise DAVError(409, "lock-token-matches-request-uri")
    return Response(204)
