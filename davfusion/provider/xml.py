"""Reading request bodies safely, and writing XML as text."""

import re
from xml.etree.ElementTree import Element, ParseError, tostring
from xml.sax.saxutils import escape

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from wsgidav.dav_error import DAVError

DAV = "{DAV:}"
DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# XML 1.0 section 2.2: these have no place in a document, not even escaped.
_NO_CHARACTERS = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_NOT_XML = re.compile(f"[{_NO_CHARACTERS}]")
_SPECIAL = re.compile(f"[&<>{_NO_CHARACTERS}]")


def parse(body: bytes) -> Element:
    """The root element; DAVError 400 for what is not well-formed or declares entities."""
    try:
        root: Element = fromstring(body, forbid_dtd=True)
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
    return f'<x:{local} xmlns:x="{escape(namespace, {chr(34): "&quot;"})}"/>'


def serialize(element: Element, lang: str | None = None) -> str:
    """An element on its own, with every namespace declared in it, and the xml:lang in scope."""
    if lang is not None and _XML_LANG not in element.attrib:
        element.set(_XML_LANG, lang)
    element.tail = None
    return tostring(element, encoding="unicode")


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
