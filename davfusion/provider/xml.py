"""Reading request bodies safely, and writing XML as text."""

import re
from typing import Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, tostring
from xml.sax.saxutils import escape, quoteattr

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import XMLParser
from wsgidav.dav_error import DAVError

DAV = "{DAV:}"
MAX_DEPTH: Final = 100
MAX_ELEMENTS: Final = 10_000
"""Real bodies have a few dozen; a tree of what fits into the largest body would take 100 MiB."""

DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
_XML = "http://www.w3.org/XML/1998/namespace"
_XML_LANG = f"{{{_XML}}}lang"
# XML 1.0 section 2.2: these have no place in a document, not even escaped.
_NO_CHARACTERS = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_NOT_XML = re.compile(f"[{_NO_CHARACTERS}]")
_SPECIAL = re.compile(f"[&<>{_NO_CHARACTERS}]")


class _Bounded(TreeBuilder):
    """Raises ValueError for a document that would take much memory, or a deep recursion later."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise ValueError("too many elements")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse(body: bytes) -> Element:
    """The root element; DAVError 400 for what is not well-formed, declares entities or is huge."""
    parser = XMLParser(target=_Bounded(), forbid_dtd=True)
    try:
        parser.feed(body)
        root: Element = parser.close()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise DAVError(400, f"The XML body cannot be read: {type(error).__name__}.") from error
    return root


def text(value: str) -> str:
    """`value` as character data; what XML cannot hold becomes U+FFFD."""
    return escape(_NOT_XML.sub("\ufffd", value)) if _SPECIAL.search(value) else value


def split_name(clark: str) -> tuple[str, str]:
    """(namespace, local name) of a name in Clark notation."""
    if clark.startswith("{"):
        namespace, _, local = clark[1:].partition("}")
        return namespace, local
    return "", clark


def empty_element(clark: str) -> str:
    """An element without content, with the declaration of its namespace."""
    namespace, local = split_name(clark)
    if namespace == "DAV:":
        return f"<D:{local}/>"
    if not namespace:
        return f'<{local} xmlns=""/>'
    if namespace == _XML:
        return f"<xml:{local}/>"  # no other prefix may stand for it
    return f"<x:{local} xmlns:x={quoteattr(namespace)}/>"


def serialize(element: Element, lang: str | None = None) -> str:
    """An element on its own, with every namespace declared in it, and the xml:lang in scope."""
    if lang is not None and _XML_LANG not in element.attrib:
        element.set(_XML_LANG, lang)
    element.tail = None
    # A reader takes a bare one for a line feed (XML 1.0 section 2.11); tostring leaves it in text.
    return tostring(element, encoding="unicode").replace("\r", "&#13;")


def inner(element: Element) -> str:
    """The content of an element: its text and its children as text."""
    return text(element.text or "") + "".join(
        tostring(child, encoding="unicode") for child in element
    )


def language(*elements: Element) -> str | None:
    """The xml:lang that the innermost of nested elements gives."""
    for element in reversed(elements):
        if (lang := element.get(_XML_LANG)) is not None:
            return lang
    return None
