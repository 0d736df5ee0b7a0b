"""Live and dead properties (rows D3 and D4), and PROPFIND's budget of calls (row M2)."""

import random
from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring

from davfusion.database import below
from davfusion.provider.propfind import LARGE, propfind
from davfusion.provider.request import DavRequest
from davfusion.provider.state import State
from davfusion.stores.memory import MemoryStore
from tests.provider.client import D, DavClient

X = "{urn:x:}"


@pytest.fixture
def client() -> DavClient:
    client = DavClient()
    client.mkcol("/d", "/d/sub")
    client("PUT", "/d/a&b.txt", b"12345", {"X-OC-Mtime": "1600000000"})
    return client


def text(client: DavClient, path: str, name: str) -> tuple[int, str | None]:
    """(status, text) of one property."""
    namespace, _, local = name[1:].partition("}")
    body = f'<propfind xmlns="DAV:"><prop><x:{local} xmlns:x="{namespace}"/></prop></propfind>'
    reply = client("PROPFIND", path, body.encode(), {"Depth": "0"})
    [props] = reply.properties().values()
    status, element = props[name]
    return status, element.text


def test_live_properties(client: DavClient) -> None:
    [props] = client.propfind("/d/a&b.txt").properties().values()
    values = {name.removeprefix(D): element.text for name, (_, element) in props.items()}
    assert values["getcontentlength"] == "5"
    assert values["getlastmodified"] == "Sun, 13 Sep 2020 12:26:40 GMT"
    assert values["creationdate"] == "2020-09-13T12:26:40Z"
    assert values["displayname"] == "a&b.txt"
    assert values["getcontenttype"] == "text/plain"
    assert values["getetag"] == client.etag("/d/a&b.txt")
    assert props[D + "resourcetype"][1].find(D + "collection") is None
    assert len(props[D + "supportedlock"][1]) == 2
    assert not [name for name in props if "quota" in name]


def test_hrefs_are_encoded_and_a_folders_ends_with_a_slash(client: DavClient) -> None:
    client.put("/d/ü #?%;.txt")
    body = client.propfind("/d", "resourcetype", depth="1").body.decode()
    hrefs = [e.text for e in fromstring(body).iter(D + "href")]
    assert sorted(map(str, hrefs)) == [
        "/d/",
        "/d/%C3%BC%20%23%3F%25%3B.txt",
        "/d/a%26b.txt",
        "/d/sub/",
    ]


def test_what_is_unknown_is_404_and_empty(client: DavClient) -> None:
    assert text(client, "/d", X + "none") == (404, None)
    assert text(client, "/d", D + "getcontentlength") == (404, None)


def test_quota_is_two_numbers_or_neither(client: DavClient) -> None:
    class Sized(MemoryStore):
        def get_free_space(self) -> int:
            return 70

        def get_used_space(self) -> int:
            return 30

    sized = DavClient(Sized())
    assert text(sized, "/", D + "quota-available-bytes") == (200, "70")
    assert text(sized, "/", D + "quota-used-bytes") == (200, "30")


def test_propname_names_what_there_is(client: DavClient) -> None:
    client.proppatch("/d", "<X:p>1</X:p>")
    body = b'<propfind xmlns="DAV:"><propname/></propfind>'
    [props] = client("PROPFIND", "/d", body, {"Depth": "0"}).properties().values()
    assert X + "p" in props
    assert D + "getetag" not in props
    assert all(element.text is None and len(element) == 0 for _, element in props.values())


def test_allprop_with_include(client: DavClient) -> None:
    body = b'<propfind xmlns="DAV:"><allprop/><include><nonsense/></include></propfind>'
    [props] = client("PROPFIND", "/d", body, {"Depth": "0"}).properties().values()
    assert props[D + "nonsense"][0] == 404
    assert props[D + "displayname"][0] == 200


def test_depth_infinity(client: DavClient) -> None:
    client.put("/d/sub/deep", b"1")
    client.proppatch("/d/sub/deep", "<X:p>here</X:p>")
    found = client.propfind("/", depth="infinity").properties()
    assert set(found) == {"/", "/d/", "/d/sub/", "/d/a&b.txt", "/d/sub/deep"}
    assert found["/d/sub/deep"][X + "p"][1].text == "here"
    assert client.propfind("/none", depth="infinity").status == 404


def test_thousands_of_names_of_many_files_are_never_in_memory_at_once(client: DavClient) -> None:
    for number in range(40):
        client.put(f"/d/{number}")
    names = "".join(f"<{'x' * 100}{number}/>" for number in range(9000))
    body = f'<propfind xmlns="DAV:"><prop>{names}</prop></propfind>'.encode()
    request = DavRequest(client.environ("PROPFIND", "/d", {"Depth": "1"}, body))
    pieces = propfind(client.tree, request).body
    assert not isinstance(pieces, bytes)
    sizes = [len(piece) for piece in pieces]
    assert sum(sizes) > 4 * LARGE
    assert max(sizes) < LARGE


def test_a_value_keeps_its_structure(client: DavClient) -> None:
    value = '<q xmlns="urn:q">\U0001d11e &lt;&amp;<!-- c --></q>tail&#13;'
    inner = f'<X:p xml:lang="de" a="1">{value}</X:p>'
    reply = client.proppatch("/d", inner)
    assert reply.properties()["/d/"][X + "p"][0] == 200
    _, element = client.propfind("/d").properties()["/d/"][X + "p"]
    assert element.attrib == {"{http://www.w3.org/XML/1998/namespace}lang": "de", "a": "1"}
    assert element.findtext("{urn:q}q") == "\U0001d11e <&"
    assert element[0].tail == "tail\r"


def test_the_language_in_scope_is_kept(client: DavClient) -> None:
    body = (
        b'<propertyupdate xmlns="DAV:" xml:lang="fr"><set><prop><p xmlns="urn:x:">oui</p></prop>'
        b"</set></propertyupdate>"
    )
    client("PROPPATCH", "/d", body)
    _, element = client.propfind("/d").properties()["/d/"][X + "p"]
    assert element.get("{http://www.w3.org/XML/1998/namespace}lang") == "fr"


@pytest.mark.parametrize(
    ("element", "name"),
    [
        ('<plain xmlns="">1</plain>', "plain"),
        ("<xml:p>1</xml:p>", "{http://www.w3.org/XML/1998/namespace}p"),
        ('<p xmlns="a&#10;&quot;&lt;&amp;">1</p>', '{a\n"<&}p'),
    ],
)
def test_a_property_of_an_unusual_namespace(client: DavClient, element: str, name: str) -> None:
    """Its answers are XML, the names in them the property's."""
    assert client.proppatch("/d", element).properties()["/d/"][name][0] == 200
    assert client.propfind("/d").properties()["/d/"][name][1].text == "1"
    named = f'<D:propfind xmlns:D="DAV:"><D:prop>{element}</D:prop></D:propfind>'
    for body in (named, '<propfind xmlns="DAV:"><propname/></propfind>'):
        found = client("PROPFIND", "/", body.encode(), {"Depth": "1"}).properties()
        assert found["/d/"][name][0] == 200


def test_proppatch_is_all_or_nothing(client: DavClient) -> None:
    reply = client.proppatch("/d", "<X:p>1</X:p><D:getetag>x</D:getetag>")
    props = reply.properties()["/d/"]
    assert (props[X + "p"][0], props[D + "getetag"][0]) == (424, 403)
    assert b"cannot-modify-protected-property" in reply.body
    assert text(client, "/d", X + "p") == (404, None)


def test_set_and_remove_are_done_in_order(client: DavClient) -> None:
    one, two = "<X:p>1</X:p>", "<X:p>2</X:p>"
    client.proppatch("/d", one + two)
    assert text(client, "/d", X + "p") == (200, "2")
    body = (
        '<D:propertyupdate xmlns:D="DAV:" xmlns:X="urn:x:">'
        f"<D:set><D:prop>{one}</D:prop></D:set>"
        "<D:remove><D:prop><X:p/><X:never/></D:prop></D:remove></D:propertyupdate>"
    )
    assert client("PROPPATCH", "/d", body.encode()).properties()["/d/"][X + "p"][0] == 200
    assert text(client, "/d", X + "p") == (404, None)


def test_properties_follow_copy_move_and_delete(client: DavClient) -> None:
    client.proppatch("/d", "<X:p>folder</X:p>")
    client.proppatch("/d/a&b.txt", "<X:p>file</X:p>")
    client.mkcol("/old")
    client.proppatch("/old", "<X:q>gone</X:q>")
    assert client("COPY", "/d", headers={"Destination": "/old"}).status == 204
    assert text(client, "/old", X + "p") == (200, "folder")
    assert text(client, "/old", X + "q") == (404, None)
    assert text(client, "/old/a&b.txt", X + "p") == (200, "file")
    assert client("MOVE", "/old", headers={"Destination": "/new"}).status == 201
    assert text(client, "/new/a&b.txt", X + "p") == (200, "file")
    assert client.state.properties.of("/old") == {}
    assert client("DELETE", "/new").status == 204
    client.mkcol("/new")
    assert text(client, "/new", X + "p") == (404, None)
    shallow = {"Destination": "/shallow", "Depth": "0"}
    assert client("COPY", "/d", headers=shallow).status == 201
    assert text(client, "/shallow", X + "p") == (200, "folder")
    assert client.state.properties.of("/shallow/a&b.txt") == {}


def test_tree_operations_of_the_table_against_a_dict(tmp_path: Path) -> None:
    """Neighbours such as /a, /ab, /a! and /a0 are never taken for members."""
    rng = random.Random(4918)
    names = ["/", "/a", "/ab", "/a!", "/a0", "/a/b", "/a/b/c", "/a%", "/a/_", "/b", "/b/a"]
    table = State(tmp_path / "s").properties
    model: dict[str, str] = {}

    def is_in(path: str, top: str) -> bool:
        return path == top or path.startswith(top.rstrip("/") + "/")

    for step in range(400):
        src, dst = rng.choice(names), rng.choice(names[1:])
        action = rng.choice(["set", "set", "remove", "copy", "move"])
        if action == "set":
            table.change(src, {"p": str(step)})
            model[src] = str(step)
        elif action == "remove":
            table.remove_tree(src)
            model = {k: v for k, v in model.items() if not is_in(k, src)}
        elif not is_in(src, dst) and not is_in(dst, src):
            (table.copy if action == "copy" else table.move_tree)(src, dst)
            moved = {dst + k[len(src) :]: v for k, v in model.items() if is_in(k, src)}
            gone = dst if action == "copy" else src
            model = {k: v for k, v in model.items() if not is_in(k, dst) and not is_in(k, gone)}
            if action == "copy":
                model |= {k: v for k, v in model.items() if is_in(k, src)}
            model |= moved
        assert {n: v["p"] for n in names if (v := table.of(n))} == {
            n: v for n, v in model.items() if n in names
        }


def test_bounds_of_a_tree() -> None:
    start, end = below("/a")
    assert start <= "/a/" < end
    assert start <= "/a/\U0010ffff" < end
    assert not start <= "/a" < end
    assert not start <= "/a!" < end
    assert not start <= "/ab" < end
    assert below("/") == ("/", "0")


def test_the_date_of_a_file_can_be_set(client: DavClient) -> None:
    client.put("/dated", b"content", Content_Type="text/x-kept")
    date = "Fri, 14 Jul 2017 02:40:00 GMT"
    inner = f"<D:getlastmodified>{date}</D:getlastmodified><X:colour>blue</X:colour>"
    assert b"403" not in client.proppatch("/dated", inner).body
    got = client.get("/dated")
    assert (got.body, got.headers["last-modified"]) == (b"content", date)
    assert got.headers["content-type"] == "text/x-kept"
    assert client.store.get_modified("/dated") == 1_500_000_000
    assert "{urn:x:}colour" in client.propfind("/dated").properties()["/dated"]


def test_rclone_sets_a_date_and_confirms_the_checksum(client: DavClient) -> None:
    name = "http://owncloud.org/ns"
    query = f'<propfind xmlns="DAV:"><prop><checksums xmlns="{name}"/></prop></propfind>'.encode()
    known = "SHA1:040f06fd774092478d450774f5ba30c5da78acc8"

    def dated(seconds: str, told: str) -> bytes:
        checksum = f'<o:checksums xmlns:o="{name}"><o:checksum>{told}</o:checksum></o:checksums>'
        inner = f"<D:lastmodified>{seconds}</D:lastmodified>"
        return client.proppatch("/f", inner + (checksum if told else "")).body

    client.put("/f", b"content", OC_Checksum=known)
    for seconds, told in (("1500000000", known), ("-1", known.lower()), ("1500000001", "")):
        assert dated(seconds, told).count(b" 200 ") == 1
        assert client.store.get_modified("/f") == int(seconds)
        assert known.encode() in client("PROPFIND", "/f", query, {"Depth": "0"}).body
    assert b"403" in dated("7", "SHA1:00")
    assert b"409" in dated("1e9", "")
    assert b"409" in dated("9" * 15, known)
    assert client.store.get_modified("/f") == 1_500_000_001


@pytest.mark.parametrize(
    ("path", "inner", "status"),
    [
        ("/f", "<D:getlastmodified>some day</D:getlastmodified>", 409),
        ("/f", "<D:getlastmodified/>", 409),
        ("/d", "<D:getlastmodified>Fri, 14 Jul 2017 02:40:00 GMT</D:getlastmodified>", 403),
        (
            "/f",
            "<D:getlastmodified>Fri, 14 Jul 2017 02:40:00 GMT</D:getlastmodified><D:getetag/>",
            403,
        ),
    ],
)
def test_a_date_that_cannot_be_set_changes_nothing(path: str, inner: str, status: int) -> None:
    client = DavClient()
    client.put("/f", b"1")
    client.mkcol("/d")
    before = client.propfind(path).body
    reply = client.proppatch(path, inner + "<X:colour>blue</X:colour>")
    assert reply.body.count(b" %d " % status) == 1
    assert b"424" in reply.body
    assert client.propfind(path).body == before
