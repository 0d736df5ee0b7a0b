"""PROPPATCH (RFC 4918 section 9.2): all instructions are carried out, or none."""

from collections.abc import Iterable, Mapping
from xml.etree.ElementTree import Element

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.conditions import parse_http_date
from davfusion.provider.errors import translated
from davfusion.provider.live_properties import LIVE
from davfusion.provider.request import XML_TYPE, DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.provider.xml import DAV
from davfusion.stores.store import Metadata

_DATE = DAV + "getlastmodified"
_PROTECTED = (
    "<D:status>HTTP/1.1 403 Forbidden</D:status>"
    "<D:error><D:cannot-modify-protected-property/></D:error>"
)
_UNREADABLE = "<D:status>HTTP/1.1 409 Conflict</D:status>"
_DEPENDENT = "<D:status>HTTP/1.1 424 Failed Dependency</D:status>"
_OK = "<D:status>HTTP/1.1 200 OK</D:status>"


def parse_update(body: bytes) -> dict[str, str | None]:
    """Property name -> its new element, or None to remove it; the last instruction counts."""
    root = xml.parse(body)
    if root.tag != DAV + "propertyupdate":
        raise DAVError(400, "The body is not a propertyupdate element.")
    changes = new_values(root)
    if not changes:
        raise DAVError(400, "The propertyupdate names no property.")
    return changes


def new_values(root: Element) -> dict[str, str | None]:
    """What the instructions in `root` make of properties, as parse_update."""
    changes: dict[str, str | None] = {}
    for instruction in root:
        for prop in instruction.findall(DAV + "prop"):
            for element in prop:
                # Removed first, so that the dictionary keeps the order of the instructions.
                changes.pop(element.tag, None)
                changes[element.tag] = _new_value(root, instruction, prop, element)
    return changes


def _new_value(root: Element, instruction: Element, prop: Element, element: Element) -> str | None:
    if instruction.tag == DAV + "remove":
        return None
    if instruction.tag != DAV + "set":
        raise DAVError(400, "An instruction is neither set nor remove.")
    return xml.serialize(element, xml.language(root, instruction, prop))


def proppatch(tree: DavTree, request: DavRequest) -> Response:
    """Set and remove dead properties, and set a file's date; other live ones are protected."""
    metadata = tree.target(request)
    tree.check_conditions(request, metadata)
    tree.check_locks(request, request.path)
    changes = parse_update(request.body())
    date = None if metadata["is_dir"] else changes.get(_DATE)
    refused = [name for name in changes if name in LIVE and not (date and name == _DATE)]
    when = parse_http_date(xml.parse(date.encode()).text) if date else None
    if refused:
        stats = refused_stats(changes, refused)
    elif date and when is None:
        stats = refused_stats(changes, [_DATE], _UNREADABLE)
    else:
        if when is not None:
            _set_modified(tree, request.path, metadata, when)
        _change_dead(tree, request.path, changes)
        stats = _propstat(list(changes), _OK)
    href = request.href(request.path, is_dir=metadata["is_dir"])
    body = (
        f'{xml.DECLARATION}<D:multistatus xmlns:D="DAV:">'
        f"<D:response><D:href>{href}</D:href>{stats}</D:response></D:multistatus>"
    )
    return Response(207, [("Content-Type", XML_TYPE)], body.encode())


def _set_modified(tree: DavTree, path: str, metadata: Metadata, when: int) -> None:
    """No service changes a date alone: the content is stored again with it."""
    if when == int(metadata["modified"]):
        return
    etag = metadata.get("etag")
    with translated(), tree.store.open_read(path, etag=etag) as content:
        tree.store.store_fileobject(
            content,
            path,
            if_etag=etag,
            modified=when,
            content_type=metadata.get("content_type"),
        )


def _change_dead(tree: DavTree, path: str, changes: Mapping[str, str | None]) -> None:
    dead = {name: value for name, value in changes.items() if name not in LIVE}
    removed = [name for name, value in dead.items() if value is None]
    if dead:
        values = {name: value for name, value in dead.items() if value is not None}
        tree.state.properties.change(path, values, removed)


def refused_stats(names: Iterable[str], refused: list[str], why: str = _PROTECTED) -> str:
    """The propstat elements of `names` where some are refused, and so all fail."""
    allowed = [name for name in names if name not in refused]
    return _propstat(refused, why) + _propstat(allowed, _DEPENDENT)


def _propstat(names: list[str], status: str) -> str:
    if not names:
        return ""
    props = "".join(map(xml.empty_element, names))
    return f"<D:propstat><D:prop>{props}</D:prop>{status}</D:propstat>"
