"""What real clients send, and what they must get: one session for each, as a table of steps.

The order and the odd headers are the clients' own; a step's comment says what breaks without it.
{token} is the last lock token and {etag} the last ETag that was given, {base} the share's URL.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from davfusion.cache.multiprocessing_caching_store import MultiprocessingCachingStore
from davfusion.provider.state import State
from davfusion.stores.memory import MemoryStore
from tests.provider.client import DavClient
from tests.remote import RemoteStore


class Step(NamedTuple):
    """A request, and what its answer must be; `wants`: header (or body) -> regular expression."""

    request: str
    status: int
    body: str | bytes = ""
    sends: dict[str, str] = {}  # noqa: RUF012 - never changed
    wants: dict[str, str] = {}  # noqa: RUF012 - never changed
    chunked: bool = False


def props(*names: str) -> str:
    inner = "".join(f"<D:{name}/>" for name in names)
    return f'<D:propfind xmlns:D="DAV:"><D:prop>{inner}</D:prop></D:propfind>'


def lockinfo(owner: str) -> str:
    return (
        '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
        f"<D:locktype><D:write/></D:locktype><D:owner>{owner}</D:owner></D:lockinfo>"
    )


def win32(time: str) -> str:
    return (
        '<D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>'
        f"<Z:Win32CreationTime>{time}</Z:Win32CreationTime>"
        f"<Z:Win32LastAccessTime>{time}</Z:Win32LastAccessTime>"
        f"<Z:Win32LastModifiedTime>{time}</Z:Win32LastModifiedTime>"
        "<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>"
        "</D:prop></D:set></D:propertyupdate>"
    )


ZERO = {"Depth": "0"}
ONE = {"Depth": "1"}
HELD = {"If": "(<{token}>)"}
EARLY, LATE = "Mon, 01 Jan 2024 10:00:00 GMT", "Tue, 02 Jan 2024 10:00:00 GMT"
XML = r"application/xml; ?charset=\"?utf-8\"?"

WINDOWS = [
    Step("OPTIONS /", 200, wants={"dav": r"1, ?2\b", "ms-author-via": "^DAV$", "allow": "LOCK"}),
    Step("PROPFIND /", 207, sends=ZERO, wants={"body": "<D:collection/>"}),  # empty: allprop
    Step("PROPFIND /folder", 404, sends=ZERO),
    Step("MKCOL /folder", 201),
    Step("PROPFIND /folder", 207, sends=ONE),  # never redirected to /folder/
    Step("PROPFIND /folder/new.txt", 404, sends=ZERO),
    Step("PUT /folder/new.txt", 201),
    Step(
        "LOCK /folder/new.txt",
        200,
        lockinfo("<D:href>PC\\me</D:href>"),
        {"Timeout": "Second-3600"},
        {"body": "Second-3600", "lock-token": "^<.+>$"},
    ),
    Step("PROPPATCH /folder/new.txt", 207, win32(EARLY), HELD, {"body": "^(?!.*(403|424)).*200"}),
    Step("HEAD /folder/new.txt", 200, wants={"content-length": "^0$"}),
    Step("PUT /folder/new.txt", 204, "content", HELD),
    Step("PROPPATCH /folder/new.txt", 207, win32(LATE), HELD, {"body": "^(?!.*(403|424)).*200"}),
    Step("UNLOCK /folder/new.txt", 204, sends={"Lock-Token": "<{token}>"}),
    Step("PROPFIND /folder", 207, sends=ONE, wants={"body": f"ModifiedTime[^>]*>{LATE}<"}),
    Step("MOVE /folder/new.txt -> /folder/New.txt", 201, sends={"Overwrite": "F"}),
    Step("PROPFIND /folder/New.txt", 207, sends=ZERO, wants={"body": LATE}),
    Step("PUT /folder/other.txt", 201, "old"),
    Step("MOVE /folder/New.txt -> /folder/other.txt", 412, sends={"Overwrite": "F"}),
    Step("GET /folder/desktop.ini", 404),
    Step("PUT /folder/a:b?|. ", 201, "of another system"),  # no Windows disk holds that name
    Step(
        "PROPFIND /folder",
        207,
        sends=ONE,
        wants={"body": "/folder/a(:|%3A)b%3F%7C[.]%20</D:href>"},
    ),
    Step("MOVE /folder/a:b?|.  -> /folder/renamed.txt", 201),
]
FINDER = [
    Step("OPTIONS /", 200, wants={"dav": r"\b2\b"}),  # else the mount is read-only
    Step("PROPFIND /", 207, props("quota-available-bytes", "quota-used-bytes"), ZERO),
    Step("PROPFIND /._.", 404, props("getlastmodified"), ZERO),
    Step("PROPFIND /.DS_Store", 404, props("getlastmodified"), ZERO),
    Step("PUT /a&b.txt", 201),
    Step(
        "LOCK /a&b.txt",
        200,
        lockinfo("<D:href>http://www.apple.com/webdav_fs/</D:href>"),
        {"Depth": "0", "Timeout": "Second-600"},
        {"body": "<D:locktoken><D:href>[^\\s<]+</D:href>"},  # it would keep the white space
    ),
    Step(
        "PUT /a&b.txt",
        204,
        "large",
        HELD | {"X-Expected-Entity-Length": "5"},
        chunked=True,
    ),
    Step("LOCK /a&b.txt", 200, sends=HELD | {"Timeout": "Second-600"}, wants={"body": "{token}"}),
    Step("UNLOCK /a&b.txt", 204, sends={"Lock-Token": "<{token}>"}),
    Step("PROPFIND /", 207, props("getetag"), ONE, {"body": "<D:href>[^<]*/a%26b.txt</D:href>"}),
    Step("GET /a&b.txt", 304, sends={"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    Step("PUT /._a&b.txt", 201, "AppleDouble"),
    Step("PUT /c.txt", 201, "replaced"),
    Step("MOVE /a&b.txt -> /c.txt", 204),  # without Overwrite
    Step("MOVE /._a&b.txt -> /._c.txt", 201),
    Step("GET /c.txt", 200, wants={"body": "^large$"}),
    Step("PROPFIND /c.txt", 207, props("none"), ZERO, {"body": "<D:none/></D:prop><D:status>"}),
    Step("PUT /e\u0301.txt", 201, "NFD"),
    Step("PROPFIND /e\u0301.txt", 207, sends=ZERO, wants={"body": "/e%CC%81.txt<"}),
    Step("LOCK /c.txt", 200, lockinfo("me"), ZERO),
    Step("DELETE /c.txt", 423),
    Step("DELETE /c.txt", 204, sends=HELD),
]
OFFICE = [
    Step("MKCOL /docs", 201),
    Step("PUT /docs/report.docx", 201, "one"),
    Step("OPTIONS /docs", 200, wants={"dav": r"\b2\b", "ms-author-via": "DAV"}),
    Step("HEAD /docs", 200),
    Step("HEAD /docs/report.docx", 200, wants={"etag": '^"'}),
    Step(
        "LOCK /docs/report.docx",
        200,
        lockinfo("<D:href>Jo</D:href>"),
        ZERO | {"Timeout": "Second-3600"},
    ),
    Step("GET /docs/report.docx", 200, sends=ZERO, wants={"body": "^one$"}),
    Step(
        "PROPFIND /docs/report.docx",
        207,
        props("lockdiscovery", "supportedlock"),
        ZERO,
        {"body": "<D:owner>[^/]*>Jo<.*</D:owner>.*<D:supportedlock><D:lockentry>"},
    ),
    Step("LOCK /docs/report.docx", 200, sends=HELD, wants={"body": "{token}"}),  # a refresh
    Step("PUT /docs/report.docx", 423, "intruder"),
    Step("PUT /docs/report.docx", 204, "two", HELD),
    Step("UNLOCK /docs/report.docx", 204, sends={"Lock-Token": "<{token}>"}),
    Step("PUT /docs/~$report.docx", 201, "owner file"),
    Step("PUT /docs/A1B2.tmp", 201, "three"),
    Step("MOVE /docs/report.docx -> /docs/C3D4.tmp", 201, sends={"Overwrite": "F"}),
    Step("MOVE /docs/A1B2.tmp -> /docs/report.docx", 201, sends={"Overwrite": "F"}),
    Step("DELETE /docs/C3D4.tmp", 204),
    Step("DELETE /docs/~$report.docx", 204),
    Step("GET /docs/report.docx", 200, wants={"body": "^three$"}),
]
LIBREOFFICE = [
    Step("PUT /letter.odt", 201, "one"),
    Step(
        "PROPFIND /letter.odt",
        207,
        '<propfind xmlns="DAV:"><propname/></propfind>',
        ZERO,
        {"body": "<D:getetag/>"},
    ),
    Step("PUT /.~lock.letter.odt#", 201, ",me,"),
    Step(
        "LOCK /letter.odt", 200, lockinfo("me"), {"Timeout": "Second-180"}, {"body": "Second-180"}
    ),
    Step("PUT /letter.odt", 204, "two", HELD | {"Expect": "100-continue"}),
    Step("LOCK /letter.odt", 412, sends={"If": "(<opaquelocktoken:gone>)"}),  # "lock expired"
    Step("UNLOCK /letter.odt", 204, sends={"Lock-Token": "<{token}>"}),
    Step("PUT /letter.odt", 412, "three", HELD),
    Step("DELETE /.~lock.letter.odt#", 204),
    Step("GET /letter.odt", 200, wants={"body": "^two$"}),
]
GVFS = [
    Step("MKCOL /folder", 201),  # without Content-Length
    Step("PUT /folder/f", 201, "one", {"If-None-Match": "*"}, {"etag": '^"[^"]+"$'}),
    Step(
        "PROPFIND /folder/f", 207, props("getetag"), ONE, {"body": "<D:getetag>{etag}</D:getetag>"}
    ),
    Step("PUT /folder/f", 412, "lost", {"If-None-Match": "*"}),
    Step("PUT /folder/f", 204, "two", {"If-Match": "{etag}"}),
    Step("MOVE /folder -> /renamed", 201),  # without a slash
    Step("LOCK /renamed/f", 200, lockinfo("other"), ZERO),
    Step("DELETE /renamed/f", 423),  # a 207 would pass for success
    Step("MOVE /renamed/f -> /g", 423),
]
DAVFS2 = [
    Step("OPTIONS /", 200, wants={"dav": r"\b2\b"}),
    Step("LOCK /new file", 201, lockinfo("davfs2"), {"Depth": "0", "Timeout": "Second-3600"}),
    Step("PUT /new file", 204, "one", {"If": "<{base}/new%20file> (<{token}>)"}),
    Step("HEAD /new file", 200, wants={"etag": '^"', "content-length": "^3$"}),
    Step("PUT /new file", 204, "two", {"If": "<{base}/new%20file> (<{token}>)"}),
    Step("UNLOCK /new file", 204, sends={"Lock-Token": "<{token}>"}),
    Step("MOVE /new file", 201, sends={"Destination": "{base}/%c3%bc"}),  # lower-case escapes
    Step("GET /ü", 200, wants={"body": "^two$"}),
    Step("PUT /ü", 412, "lost", {"If": "<{base}/%c3%bc> (<{token}>)"}),
]
KDE = [
    Step("PUT /f", 201, "one"),
    Step("MOVE /f -> /g", 201, sends={"Depth": "infinity", "Overwrite": "F"}),
    Step("PROPFIND /g", 207, props("creationdate", "getcontentlength", "resourcetype"), ZERO),
]
RCLONE = [
    Step("MKCOL /a/", 201),
    Step("MKCOL /a/", 405),
    Step("MKCOL /none/a/", 409),
    Step(
        "PUT /a/f",
        201,
        "content",
        {
            "X-OC-Mtime": "1500000000",
            "OC-Checksum": "SHA1:040f06fd774092478d450774f5ba30c5da78acc8",
        },
        {"x-oc-mtime": "^accepted$"},
    ),
    Step(
        "PROPFIND /a/",
        207,
        '<d:propfind xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns"><d:prop><d:displayname/>'
        "<d:getlastmodified/><d:getcontentlength/><d:resourcetype/><oc:checksums/></d:prop>"
        "</d:propfind>",
        ONE,
        {"body": "14 Jul 2017 02:40:00 GMT.*SHA1:040f06fd"},
    ),
    Step("GET /a/f", 200, sends=ZERO, wants={"body": "^content$"}),
    Step("MOVE /a/f", 201, sends={"Destination": "{base}/a/x%3Fy%23z%25%3B"}),
    Step("GET /a/x?y#z%;", 200, wants={"body": "^content$"}),
    Step("PUT /a/stream", 201, "of unknown length", chunked=True),
    Step("DELETE /a/", 204),
]
JOPLIN_ODDITY = {"If-None-Match": "JoplinIgnore-123"}
JOPLIN = [
    Step("PROPFIND /", 207, props("resourcetype"), ZERO | JOPLIN_ODDITY),
    Step("MKCOL /.resource", 201, sends=JOPLIN_ODDITY),
    Step("PUT /info.json", 201, "{}", JOPLIN_ODDITY),
    Step("PUT /info.json", 204, "{ }", JOPLIN_ODDITY),
    Step("PROPFIND /", 207, props("getlastmodified", "resourcetype"), ONE | JOPLIN_ODDITY),
    Step("GET /info.json", 200, wants={"body": r"^\{ \}$"}),
    Step("DELETE /info.json", 204, sends=JOPLIN_ODDITY),
]
ZOTERO = [
    Step("OPTIONS /zotero/", 200, wants={"dav": "1"}),
    Step("PROPFIND /zotero/", 404, props("getcontentlength"), ZERO),
    Step("MKCOL /zotero/", 201),
    Step("GET /zotero/nonexistent.prop", 404),
    Step("PUT /zotero/zotero-test-file.prop", 201, " "),
    Step("GET /zotero/zotero-test-file.prop", 200, wants={"body": "^ $"}),
    Step("DELETE /zotero/zotero-test-file.prop", 204),
    Step("DELETE /zotero/zotero-test-file.prop", 404),
]
KEEPASS = [
    Step("PUT /db.kdbx", 201, "one"),
    Step("PUT /db.kdbx.tmp", 201, "two"),
    Step("DELETE /db.kdbx", 204),
    Step("MOVE /db.kdbx.tmp -> /db.kdbx", 201),
    Step("PUT /db.kdbx.tmp", 201, "three"),
    Step("MOVE /db.kdbx.tmp -> /db.kdbx", 204),  # KeePassXC, KeeWeb: over what is there
    Step("GET /db.kdbx", 200, wants={"body": "^three$"}),
]
NEXTCLOUD = [
    Step("MKCOL /sync", 201),
    Step(
        "PUT /sync/f",
        201,
        "content",
        {"OC-Checksum": "ADLER32:0bcb02fc", "X-OC-Mtime": "1500000000"},
        {"etag": '^"'},
    ),
    Step(
        "PROPFIND /sync",
        207,
        '<d:propfind xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns"><d:prop><d:getetag/>'
        "<oc:id/><oc:permissions/><oc:checksums/><d:resourcetype/></d:prop></d:propfind>",
        ONE,
        {
            "content-type": XML,
            "body": '<oc:permissions [^>]*>GDNVCK<.*<D:getetag>"[^"]+"<.*'
            "<oc:id [^>]*>\\w+<.*GDNVW<.*ADLER32",
        },
    ),
    Step("PUT /sync/f", 400, "broken", {"OC-Checksum": "ADLER32:0bcb02fc"}),
    Step(
        "REPORT /sync",
        207,
        '<sync-collection xmlns="DAV:"><sync-token/><sync-level>infinite</sync-level>'
        "<prop><getetag/></prop></sync-collection>",
        wants={"content-type": XML, "body": "/sync/f<.*<D:sync-token>data:"},
    ),
]
OBSIDIAN = [
    Step("PROPFIND /", 207, props("getetag"), {"Depth": "infinity"}),
    Step("MKCOL /vault/", 201),
    Step("PUT /vault/note.md", 201, "# One", {"If-None-Match": "*"}),
    Step("PUT /vault/note.md", 412, "# Two", {"If-None-Match": "*"}),
    Step("PROPFIND /vault/", 207, props("getetag"), {"Depth": "infinity"}, {"body": "note.md"}),
]
CYBERDUCK = [
    Step("PUT /f", 201, "one"),
    Step(
        "PROPPATCH /f",
        207,
        '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><s:lastmodified xmlns:s="SAR:">'
        "Mon, 01 Jan 2024</s:lastmodified></D:prop></D:set></D:propertyupdate>",
        wants={"body": "200"},
    ),
    Step("MOVE /f -> /g", 201),
    Step("PROPFIND /g", 207, sends=ZERO, wants={"body": "Mon, 01 Jan 2024<"}),
]
BITKINEX = [
    Step(
        "PROPFIND /",
        207,
        f'<?xml version="1.0" encoding="utf-16"?>{props("getetag")}'.encode("utf-16"),
        ZERO,
    ),
    Step("PROPFIND /", 207, props(), ZERO, {"body": "<D:href>[^<]*/</D:href>"}),
    Step("PUT /f", 201, "one"),
    Step("LOCK /f", 200, lockinfo("me"), {"Timeout": "infinity"}, {"body": "Second-\\d+"}),
]
SESSIONS = {
    "Windows Explorer": WINDOWS,
    "Finder": FINDER,
    "Microsoft Office": OFFICE,
    "LibreOffice": LIBREOFFICE,
    "gvfs": GVFS,
    "davfs2": DAVFS2,
    "KDE": KDE,
    "rclone": RCLONE,
    "Joplin": JOPLIN,
    "Zotero": ZOTERO,
    "KeePass": KEEPASS,
    "Nextcloud-style sync": NEXTCLOUD,
    "Obsidian": OBSIDIAN,
    "Cyberduck": CYBERDUCK,
    "BitKinex": BITKINEX,
}


@pytest.fixture(params=["memory", "write-back"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DavClient]:
    if request.param == "memory":
        yield DavClient(MemoryStore())
        return
    store = MultiprocessingCachingStore(RemoteStore(), cache_dir=tmp_path, write_back_delay=0)
    client = DavClient(store, State(tmp_path / "state.sqlite"))
    yield client
    client.state.close()
    store.close()


@pytest.mark.parametrize("prefix", ["", "/dav"])
@pytest.mark.parametrize("name", SESSIONS)
def test_a_session(client: DavClient, name: str, prefix: str) -> None:
    client.prefix = prefix
    replay(client, SESSIONS[name])


def replay(client: DavClient, session: Sequence[Step]) -> None:
    known = {"token": "", "etag": "", "base": f"http://localhost{client.prefix}"}

    def filled(text: str) -> str:
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    for step in session:
        line, _, destination = step.request.partition(" -> ")
        method, _, path = line.partition(" ")
        headers = {name: filled(value) for name, value in step.sends.items()}
        if destination:
            headers["Destination"] = known["base"] + quote(destination)
        body = step.body if isinstance(step.body, bytes) else filled(step.body).encode()
        reply = client(method, path, body, headers, chunked=step.chunked)
        assert reply.status == step.status, (step, reply)
        for name, pattern in step.wants.items():
            found = reply.body.decode() if name == "body" else reply.headers.get(name, "")
            assert re.search(filled(pattern), found, re.DOTALL), (step, reply)
        known["token"] = reply.headers.get("lock-token", known["token"]).strip("<>")
        known["etag"] = reply.headers.get("etag", known["etag"])
