"""Live properties: a table of name -> how its element is written.

Those of RFC 4918 section 15, RFC 4331, 3253 and 6578, and what sync clients know from ownCloud.
A writer takes a Resource and gives the element as text, or None where the resource lacks the
property.
"""

import hashlib
import mimetypes
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple, Protocol

from davfusion.provider.locks import Lock
from davfusion.provider.xml import DAV, text
from davfusion.stores import paths
from davfusion.stores.store import Metadata

BINARY_TYPE = "application/octet-stream"
FOLDER_TYPE = "httpd/unix-directory"

SYNC_TOKEN = DAV + "sync-token"
OC = "{http://owncloud.org/ns}"
_OC = 'xmlns:oc="http://owncloud.org/ns"'
_ONLY_IF_NAMED = (DAV + "quota-", DAV + "supported-report-set", SYNC_TOKEN, OC)
FIRST_SECOND, LAST_SECOND = -30610224000, 253402300799
"""Of the years 1000 and 9999."""


Quota = Callable[[], tuple[int | None, int | None]]
"""(available, used) bytes."""


class Href(Protocol):
    """The absolute-path reference of a store path; see DavRequest.href."""

    def __call__(self, path: str, *, is_dir: bool = False) -> str: ...


class Scene(NamedTuple):
    """What is the same for all resources of an answer.

    `name` is that of what is served; `quota` is (available, used) bytes; `sync_token` tells that of
    a folder's path, where there are any, `checksums` ETag -> checksum of a file's; `folder_etag` is
    that of each folder.
    """

    href: Href
    name: str
    quota: Quota
    sync_token: Callable[[str], str] | None
    checksums: Callable[[str], Mapping[str, str]]
    folder_etag: str | None
    is_writable: bool
    now: float


class Resource(NamedTuple):
    """A file or folder as PROPFIND sees it."""

    path: str
    metadata: Metadata
    locks: tuple[Lock, ...]
    scene: Scene


@lru_cache(maxsize=4096)
def http_date(seconds: int) -> str:
    """An IMF-fixdate (RFC 9110 section 5.6.7); what four digits cannot say, nearly."""
    days, rest = divmod(_sayable(seconds), 86400)
    minutes, second = divmod(rest, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_date(days)} {hour:02}:{minute:02}:{second:02} GMT"


@lru_cache(maxsize=1024)
def _date(days: int) -> str:
    return formatdate(days * 86400, usegmt=True)[:16]


@lru_cache(maxsize=4096)
def iso_date(seconds: int) -> str:
    """A date of RFC 3339 in UTC, as http_date."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_sayable(seconds)))


def _sayable(seconds: int) -> int:
    return min(max(seconds, FIRST_SECOND), LAST_SECOND)


@lru_cache(maxsize=4096)
def _guess(extension: str) -> str:
    return mimetypes.guess_type("x" + extension)[0] or BINARY_TYPE


def content_type(path: str, metadata: Metadata) -> str:
    """The media type that the store knows, else by the name's extension."""
    if metadata["is_dir"]:
        return FOLDER_TYPE
    _, dot, extension = paths.name(path).rpartition(".")
    return metadata.get("content_type") or _guess(dot + extension.lower())


def quoted_etag(metadata: Metadata) -> str | None:
    """The entity tag as headers and getetag carry it; None where the store has none."""
    etag = metadata.get("etag")
    return f'"{etag}"' if etag else None


def versioned(metadata: Metadata, folder_etag: str | None) -> Metadata:
    """The same with the entity tag of a folder, which no store knows."""
    if folder_etag is None or not metadata["is_dir"]:
        return metadata
    return {**metadata, "etag": folder_etag}


def version_headers(metadata: Metadata) -> list[tuple[str, str]]:
    """Last-Modified and, where there is one, ETag; a folder's date says little of what is in it."""
    is_dir = metadata["is_dir"]
    headers = [] if is_dir else [("Last-Modified", http_date(int(metadata["modified"])))]
    if etag := quoted_etag(metadata):
        headers.append(("ETag", etag))
    return headers


def active_lock(lock: Lock, root_href: str, now: float) -> str:
    """The activelock element (RFC 4918 section 14.1). No white space: Finder keeps it."""
    scope = "exclusive" if lock.is_exclusive else "shared"
    return (
        f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>"
        f"<D:depth>{'infinity' if lock.is_deep else '0'}</D:depth>"
        + (f"<D:owner>{lock.owner}</D:owner>" if lock.owner else "")
        + f"<D:timeout>Second-{max(1, round(lock.expires - now))}</D:timeout>"
        f"<D:locktoken><D:href>{lock.token}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{root_href}</D:href></D:lockroot></D:activelock>"
    )


_SUPPORTED_LOCK = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope>"
    "<D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)


def _lock_discovery(r: Resource) -> str:
    href, now = r.scene.href, r.scene.now
    locks = "".join(active_lock(lock, href(lock.root), now) for lock in r.locks)
    return f"<D:lockdiscovery>{locks}</D:lockdiscovery>"


def _etag(r: Resource) -> str | None:
    etag = r.scene.folder_etag if r.metadata["is_dir"] else r.metadata.get("etag")
    return f'<D:getetag>"{text(etag)}"</D:getetag>' if etag else None


def _quota(r: Resource, which: int, name: str) -> str | None:
    # RFC 4331 section 3: both belong to folders; without a true figure there is no property.
    value = r.scene.quota()[which] if r.metadata["is_dir"] else None
    return None if value is None else f"<D:{name}>{value}</D:{name}>"


def _length(r: Resource) -> str | None:
    if r.metadata["is_dir"]:
        return None
    return f"<D:getcontentlength>{r.metadata['bytes']}</D:getcontentlength>"


def _created(r: Resource) -> str | None:
    # No store tells a creation time that survives a copy; the last change is the honest bound.
    if not _is_dated(r):
        return None
    return f"<D:creationdate>{iso_date(int(r.metadata['modified']))}</D:creationdate>"


def _modified(r: Resource) -> str | None:
    if not _is_dated(r):
        return None
    return f"<D:getlastmodified>{http_date(int(r.metadata['modified']))}</D:getlastmodified>"


def _is_dated(r: Resource) -> bool:
    """A directory of a service that dates none, such as S3, has modified 0."""
    return bool(r.metadata["modified"] or not r.metadata["is_dir"])


def _type(r: Resource) -> str:
    return f"<D:getcontenttype>{text(content_type(r.path, r.metadata))}</D:getcontenttype>"


def _resource_type(r: Resource) -> str:
    kind = "<D:collection/>" if r.metadata["is_dir"] else ""
    return f"<D:resourcetype>{kind}</D:resourcetype>"


def _display_name(r: Resource) -> str:
    return f"<D:displayname>{text(paths.name(r.path) or r.scene.name)}</D:displayname>"


def _sync_token(r: Resource) -> str | None:
    if not (r.metadata["is_dir"] and r.scene.sync_token):
        return None
    return f"<D:sync-token>{text(r.scene.sync_token(r.path))}</D:sync-token>"


def _reports(r: Resource) -> str:
    report = "<D:supported-report><D:report><D:sync-collection/></D:report></D:supported-report>"
    of_folders = report if r.metadata["is_dir"] and r.scene.sync_token else ""
    return f"<D:supported-report-set>{of_folders}</D:supported-report-set>"


def _checksums(r: Resource) -> str | None:
    known = None if r.metadata["is_dir"] else r.scene.checksums(r.path)
    checksum = known.get(r.metadata.get("etag", "")) if known else None
    if checksum is None:
        return None
    return f"<oc:checksums {_OC}><oc:checksum>{text(checksum)}</oc:checksum></oc:checksums>"


def _id(r: Resource) -> str:
    # Of the name: no store has one that goes with a file, so a renamed file is another one.
    return f"<oc:id {_OC}>{hashlib.sha256(r.path.encode()).hexdigest()[:32]}</oc:id>"


def _permissions(r: Resource) -> str:
    """Letters of ownCloud: Get, Delete, reName, moVe, and Write, or Create file and folder (K)."""
    letters = "GDNVCK" if r.metadata["is_dir"] else "GDNVW"
    return f"<oc:permissions {_OC}>{letters if r.scene.is_writable else 'G'}</oc:permissions>"


LIVE: dict[str, Callable[[Resource], str | None]] = {
    DAV + "resourcetype": _resource_type,
    DAV + "getlastmodified": _modified,
    DAV + "creationdate": _created,
    DAV + "getcontentlength": _length,
    DAV + "getcontenttype": _type,
    DAV + "getetag": _etag,
    DAV + "displayname": _display_name,
    DAV + "supportedlock": lambda _r: f"<D:supportedlock>{_SUPPORTED_LOCK}</D:supportedlock>",
    DAV + "lockdiscovery": _lock_discovery,
    DAV + "quota-available-bytes": lambda r: _quota(r, 0, "quota-available-bytes"),
    DAV + "quota-used-bytes": lambda r: _quota(r, 1, "quota-used-bytes"),
    DAV + "supported-report-set": _reports,
    SYNC_TOKEN: _sync_token,
    OC + "checksums": _checksums,
    OC + "id": _id,
    OC + "permissions": _permissions,
}
ALLPROP = tuple(name for name in LIVE if not name.startswith(_ONLY_IF_NAMED))
"""Without what allprop is to leave out: RFC 4331 section 3, 3253 section 3.1.5, 6578 section 4."""


def has_property(resource: Resource, name: str) -> bool:
    """Whether the resource has that live property; a token is not looked for."""
    if name == SYNC_TOKEN:
        return resource.metadata["is_dir"] and resource.scene.sync_token is not None
    return LIVE[name](resource) is not None
