"""Shares: which share a path of the whole tree lies in, and for whom it is there.

A share is found by its user and a path, and then has the request to itself, with a path and a
prefix of its own: locks, properties, quota and answers that are given again are those of the share.
What a user may not read is found nowhere, so it is to him as what does not exist.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from davfusion.config import Rights
from davfusion.memo import Memo
from davfusion.provider.repeating import memo_for
from davfusion.provider.request import DavRequest
from davfusion.provider.tree import DavTree
from davfusion.stores import paths

OPEN: Final = Rights()


@dataclass(frozen=True)
class Share:
    """A share as one process serves it."""

    tree: DavTree
    rights: Rights = OPEN


class Place(NamedTuple):
    """Where a path of the whole tree lies, and the request as if it were for that path."""

    tree: DavTree
    request: DavRequest
    memo: Memo | None


class Shares:
    """The shares of one server by name: a folder of the root, or paths.ROOT for the only one."""

    def __init__(self, shares: Mapping[str, Share]) -> None:
        self._shares = {_mount(name): share for name, share in shares.items()}
        self._memos = {mount: memo_for(share.tree) for mount, share in self._shares.items()}
        self._is_single = "" in self._shares

    def place(self, request: DavRequest, path: str) -> Place | None:
        """Where `path` lies; None: in no share that there is for the request's user."""
        mount, inner = ("", path) if self._is_single else _split(path)
        share = self._shares.get(mount)
        if share is None or not share.rights.may_read(request.user):
            return None
        within = request.within(mount, inner)
        within.may_write = not share.tree.read_only and share.rights.may_write(request.user)
        within.folder_etag = share.tree.folder_etag()
        return Place(share.tree, within, self._memos[mount])

    def may_write(self, request: DavRequest) -> bool:
        """Whether the request's user may change any share.

        What OPTIONS says of the root counts for all that is mounted there: Finder mounts a server
        without locks to be read only.
        """
        return any(place.request.may_write for place in self.visible(request).values())

    def visible(self, request: DavRequest) -> dict[str, Place]:
        """Mount -> the root of each share that there is for the request's user."""
        return {mount: place for mount in self._shares if (place := self.place(request, mount))}


def _mount(name: str) -> str:
    return "" if name == paths.ROOT else paths.join(paths.ROOT, name)


def _split(path: str) -> tuple[str, str]:
    """`/share`, and the path in it."""
    name, _, inner = path[1:].partition("/")
    return f"/{name}", f"/{inner}"
