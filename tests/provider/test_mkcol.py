"""MKCOL with properties (RFC 5689): the folder with all of them, or nothing."""

import pytest

from tests.provider.client import D, DavClient

X = "{urn:x:}"


def body(*props: str, kinds: str = "<D:collection/>") -> bytes:
    return (
        '<D:mkcol xmlns:D="DAV:" xmlns:X="urn:x:"><D:set><D:prop>'
        f"<D:resourcetype>{kinds}</D:resourcetype>{''.join(props)}"
        "</D:prop></D:set></D:mkcol>"
    ).encode()


@pytest.mark.parametrize("kind", ["application/xml", 'text/xml; charset="utf-8"'])
def test_a_folder_is_made_with_its_properties(kind: str) -> None:
    client = DavClient()
    made = client("MKCOL", "/d", body("<X:colour>blue</X:colour>"), {"Content-Type": kind})
    assert made.status == 201
    props = client.propfind("/d").properties()["/d/"]
    assert props[X + "colour"][1].text == "blue"
    assert props[D + "resourcetype"][1].find(D + "collection") is not None
    assert "extended-mkcol" in client("OPTIONS", "/").headers["dav"]


def test_a_property_that_cannot_be_set_leaves_no_folder() -> None:
    client = DavClient()
    inner = body("<X:colour>blue</X:colour><D:getetag>1</D:getetag>")
    refused = client("MKCOL", "/d", inner)
    assert refused.status == 424
    assert refused.body.count(b"403 Forbidden") == refused.body.count(b"424 Failed") == 1
    assert b"mkcol-response" in refused.body
    assert client("PROPFIND", "/d").status == 404


@pytest.mark.parametrize(
    ("sent", "kind", "status"),
    [
        (body(kinds="<D:collection/><X:calendar/>"), "application/xml", 403),
        (body(kinds=""), "application/xml", 403),
        (b'<D:other xmlns:D="DAV:"/>', "application/xml", 415),
        (b"words", "text/plain", 415),
        (b"words", "application/xml", 400),
    ],
)
def test_other_bodies_make_nothing(sent: bytes, kind: str, status: int) -> None:
    client = DavClient()
    refused = client("MKCOL", "/d", sent, {"Content-Type": kind})
    assert refused.status == status
    assert (b"valid-resourcetype" in refused.body) == (status == 403)
    assert client("PROPFIND", "/d").status == 404


def test_chunks_of_nothing_are_no_body() -> None:
    assert DavClient()("MKCOL", "/d", chunked=True).status == 201


def test_what_is_there_already_stays() -> None:
    client = DavClient()
    client.mkcol("/d")
    assert client("MKCOL", "/d", body("<X:colour>blue</X:colour>")).status == 405
    assert X + "colour" not in client.propfind("/d").properties()["/d/"]
    assert client("MKCOL", "/none/d", body()).status == 409
