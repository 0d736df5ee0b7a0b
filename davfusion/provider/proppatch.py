"""PROPPATCH (RFC 4918 section 9.2): all instructions are carried out, or none."""

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from wsgidav.dav_error import DAVError

from davfusion.provider import xml
from davfusion.provider.live_properties import LIVE
from davfusion.provider.request import XML_TYPE, DavRequest, Response
from davfusion.provider.tree import DavTree
from davfusion.provider.xml import DAV

_PROTECTED = (
    "<D:status>HTTP/1.1 403 Forbidden</D:status>"
    "<D:error><D:cannot-modify-protected-property/></D:error>"
)
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
    """Set and remove dead properties; live ones are protected."""
    metadata = tree.target(request)
    tree.check_conditions(request, metadata)
    tree.check_locks(request, request.path)
    changes = parse_update(request.body())
    refused = [name for name in changes if name in LIVE]
    if refused:
        stats = refused_stats(changes, refused)
    else:
        values = {name: value for name, value in changes.items() if value is not None}
        removed = [name for name, value in changes.items() if value is None]
        tree.state.properties.change(request.path, values, removed)
        stats = _propstat(list(changes), _OK)
    href = request.href(request.path, is_dir=metadata["is_dir"])
    body = (
        f'{xml.DECLARATION}<D:multistatus xmlns:D="DAV:">'
        f"<D:response><D:href>{href}</D:href>{stats}</D:response></D:multistatus>"
    )
    return Response(207, [("Content-Type", XML_TYPE)], body.encode())


def refused_stats(names: Iterable[str], refused: list[str]) -> str:
    """The propstat elements of `names` where some are refused, and so all fail."""
    allowed = [name for name in names if name not in refused]
    return _propstat(refused, _PROTECTED) + _propstat(allowed, _DEPENDENT)


def _propstat(names: list[str], status: str) -> str:
    if not names:
        return ""
    props = "".join(map(xml.empty_element, names))
    return f"<D:propstat><D:prop>{props}</D:prop>{status}</D:propstat>"
