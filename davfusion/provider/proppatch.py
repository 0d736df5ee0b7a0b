"""PROPPATCH (RFC 4918 section 9.2): all instructions are carried out, or none."""

from collections.abc import Collection, Iterable, Mapping
from xml.etree.ElementTree import Element

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.conditions import parse_http_date
from davfusion.provider.errors import translated
from davfusion.provider.live_properties import FIRST_SECOND, LAST_SECOND, LIVE, OC
from davfusion.provider.request import XML_TYPE, DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.provider.xml import DAV
from davfusion.stores.store import Metadata
from davfusion.stores.transfer import Whole

_CHECKSUMS = OC + "checksums"
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
    is_dated_by_clients = tree.store.features.modified_times and not metadata["is_dir"]
    dates = _dates(changes) if is_dated_by_clients else {}
    allowed = {*dates, *_confirmed(tree, request.path, metadata, changes)}
    if refused := [name for name in changes if name in LIVE and name not in allowed]:
        stats = refused_stats(changes, refused)
    elif unreadable := [name for name, when in dates.items() if when is None]:
        stats = refused_stats(changes, unreadable, _UNREADABLE)
    else:
        for when in [*dates.values()][-1:]:
            _set_modified(tree, request.path, metadata, when or 0)
        _change_dead(tree, request.path, changes, allowed)
        stats = _propstat(list(changes), _OK)
    href = request.href(request.path, is_dir=metadata["is_dir"])
    body = (
        f'{xml.DECLARATION}<D:multistatus xmlns:D="DAV:">'
        f"<D:response><D:href>{href}</D:href>{stats}</D:response></D:multistatus>"
    )
    return Response(207, [("Content-Type", XML_TYPE)], body.encode())


def _seconds(value: str | None) -> int | None:
    digits = (value or "").strip()
    is_number = digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) < 16
    when = int(digits) if is_number else LAST_SECOND + 1
    return when if FIRST_SECOND <= when <= LAST_SECOND else None


_DATES = {DAV + "getlastmodified": parse_http_date, DAV + "lastmodified": _seconds}
"""What sets a file's date. The second is Nextcloud's, which rclone uses too."""


def _dates(changes: Mapping[str, str | None]) -> dict[str, int | None]:
    """The dates that are to be set; None for one that cannot be read."""
    return {
        name: _DATES[name](xml.parse(value.encode()).text)
        for name, value in changes.items()
        if name in _DATES and value is not None
    }


def _confirmed(
    tree: DavTree, path: str, metadata: Metadata, changes: Mapping[str, str | None]
) -> list[str]:
    """The checksum that rclone sends with a date, if it is what is known of the content."""
    element = changes.get(_CHECKSUMS)
    known = tree.state.checksums.of(path).get(metadata.get("etag", "")) if element else None
    if element is None or known is None:
        return []
    told = "".join(xml.parse(element.encode()).itertext()).strip()
    return [_CHECKSUMS] if told.lower() in known.lower().split() else []


def _set_modified(tree: DavTree, path: str, metadata: Metadata, when: int) -> None:
    """No service changes a date alone: the content is stored again with it."""
    if when == int(metadata["modified"]):
        return
    etag = metadata.get("etag")
    checksum = tree.state.checksums.of(path).get(etag or "")
    with translated(), tree.store.open_read(path, etag=etag) as content:
        stored = tree.store.store_fileobject(
            Whole(content, metadata["bytes"]),
            path,
            if_etag=etag,
            modified=when,
            content_type=metadata.get("content_type"),
        )
    if checksum is not None:
        tree.state.note_checksum(path, stored.get("etag", ""), checksum)


def _change_dead(
    tree: DavTree, path: str, changes: Mapping[str, str | None], live: Collection[str]
) -> None:
    dead = {name: value for name, value in changes.items() if name not in {*LIVE, *live}}
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
