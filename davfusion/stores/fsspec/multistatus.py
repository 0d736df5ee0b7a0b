"""What a DAV server says of files (RFC 4918, section 13), and how it is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from davfusion.stores.errors import TransientStoreError
from davfusion.stores.fsspec.backend import unquoted, version_of
from davfusion.stores.store import Metadata

_DAV: Final = "{DAV:}"
_OURS: Final = "urn:davfusion"
_MODIFIED: Final = f"{{{_OURS}}}modified"
_UNKNOWN_TYPE: Final = "application/octet-stream"
PROPFIND: Final = (
    '<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop><resourcetype/>'
    "<getcontentlength/><getlastmodified/><getetag/><getcontenttype/>"
    f'<modified xmlns="{_OURS}"/></prop></propfind>'
).encode()
QUOTA: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>'
    b"<quota-available-bytes/><quota-used-bytes/></prop></propfind>"
)


@dataclass(frozen=True)
class Entry:
    """One resource."""

    path: str
    """As the server names it, decoded, without a slash at its end."""
    metadata: Metadata
    strong_etag: str | None
    """As an If-Match takes it; None where the server has none, or only a weak one."""
    is_dated: bool = False
    """Whether modified_patch has dated it."""


def modified_patch(when: float, size: int) -> bytes:
    """The body of a PROPPATCH that keeps a client's time.

    As no server lets DAV:getlastmodified be set, it is a property of ours. `size` is that of the
    file: should another program replace it, the time most likely no longer counts.
    """
    return (
        '<?xml version="1.0" encoding="utf-8"?><propertyupdate xmlns="DAV:"><set><prop>'
        f'<modified xmlns="{_OURS}">{when!r} {size}</modified></prop></set></propertyupdate>'
    ).encode()


UNDATING: Final = (
    '<?xml version="1.0" encoding="utf-8"?><propertyupdate xmlns="DAV:"><remove><prop>'
    f'<modified xmlns="{_OURS}"/></prop></remove></propertyupdate>'
).encode()
"""The body of a PROPPATCH that takes it back."""


def entries(body: bytes) -> Iterator[Entry]:
    """What a 207 answer to PROPFIND tells of; TransientStoreError where it is no such answer.

    What the server says nothing of but that it may not be seen is left out; where it failed to
    look at something, the answer is none.
    """
    for response in _parsed(body).iter(f"{_DAV}response"):
        href = response.findtext(f"{_DAV}href", "").strip()
        if found := _properties(response):
            yield _entry(unquote(urlsplit(href).path).rstrip("/"), found)
        elif any(" 5" in (status.text or "") for status in response.iter(f"{_DAV}status")):
            raise TransientStoreError(f"the DAV server failed to look at {href}")


def quota(body: bytes) -> tuple[int | None, int | None]:
    """Bytes available and used (RFC 4331); None where the server does not say."""
    found = next(map(_properties, _parsed(body).iter(f"{_DAV}response")), {})
    return _number(found, "quota-available-bytes"), _number(found, "quota-used-bytes")


def _parsed(body: bytes) -> Element:
    try:
        root: Element = fromstring(body)
    except (ParseError, DefusedXmlException) as error:
        raise TransientStoreError(f"the DAV server's answer is no XML: {error}") from error
    return root


def _properties(response: Element) -> dict[str, Element]:
    """Those that are there: of the propstat with status 200."""
    return {
        prop.tag: prop
        for propstat in response.iter(f"{_DAV}propstat")
        if " 200" in propstat.findtext(f"{_DAV}status", "")
        for prop in propstat.iterfind(f"{_DAV}prop/*")
    }


def _entry(path: str, found: dict[str, Element]) -> Entry:
    kind = found.get(f"{_DAV}resourcetype")
    modified = _date(found)
    if kind is not None and kind.find(f"{_DAV}collection") is not None:
        return Entry(path, Metadata(modified=modified, bytes=0, is_dir=True), None)
    size = _number(found, "getcontentlength") or 0
    etag = _text(found, f"{_DAV}getetag")
    metadata = Metadata(
        modified=_given_time(found, size) or modified,
        bytes=size,
        is_dir=False,
        etag=unquoted(etag) if etag else version_of(size, modified),
    )
    content_type = _text(found, f"{_DAV}getcontenttype")
    if content_type not in ("", _UNKNOWN_TYPE):
        metadata["content_type"] = content_type
    return Entry(path, metadata, etag if etag.startswith('"') else None, _MODIFIED in found)


def _date(found: dict[str, Element]) -> float:
    try:
        return parsedate_to_datetime(_text(found, f"{_DAV}getlastmodified")).timestamp()
    except ValueError:
        return 0.0


def _given_time(found: dict[str, Element], size: int) -> float | None:
    when, _, of_size = _text(found, _MODIFIED).partition(" ")
    try:
        return float(when) if of_size == str(size) else None
    except ValueError:
        return None


def _number(found: dict[str, Element], name: str) -> int | None:
    text = _text(found, _DAV + name)
    return int(text) if text.isdigit() else None


def _text(found: dict[str, Element], name: str) -> str:
    element = found.get(name)
    return "" if element is None else (element.text or "").strip()
