"""DavTree: what the DAV methods work on, a store with its locks and properties."""

import time
from collections.abc import Callable
from typing import Final
from unicodedata import normalize

from wsgidav.dav_error import DAVError

from davfusion.provider.conditions import (
    check_http_conditions,
    if_holds,
    names_version,
    parse_if,
    submitted_tokens,
)
from davfusion.provider.errors import ConditionError, translated
from davfusion.provider.live_properties import versioned
from davfusion.provider.locks import LockedError
from davfusion.provider.request import DavRequest
from davfusion.provider.state import State
from davfusion.provider.sync_log import PREFIX
from davfusion.provider.syncing import SyncTokens
from davfusion.stores import paths
from davfusion.stores.errors import NoSuchFilesytemObjectError, StoreAccessError
from davfusion.stores.store import Metadata, Store

_UNTOLD: Final = 60.0
"""Seconds that another program's change may take to show in a folder's tag, where no cache says."""


class DavTree:
    """A store as clients see it, and the checks that come before a change."""

    def __init__(
        self,
        store: Store,
        state: State,
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.state = state
        self.read_only = read_only or not store.features.writable
        self.clock = clock
        validity = store.validity
        self._age = validity.age if validity else _UNTOLD

    def folder_etag(self) -> str | None:
        """The entity tag of each folder of the share; None where nothing is kept on a disk.

        It is another one after each change by a client of the share, and after each that the
        service has told of; since other programs' changes may go unseen, also from time to time:
        who keeps to it sees them at most as much later as they may go unseen. To be asked for
        before what it is the tag of: a change meanwhile makes another one.
        """
        if (stamp := self.state.stamp) is None:
            return None
        return f"{stamp.value().hex()}-{int(self.clock() // self._age):x}"

    def changed(self) -> None:
        """Whatever a client may have changed, it shows by now."""
        if self.state.stamp is not None:
            self.state.stamp.renew()

    def canonical_path(self, path: str) -> str:
        """`path` in the spelling of what is there; as it is where the service cannot be asked."""
        try:
            canonical = self.store.canonical_path(path)
            return canonical if canonical.isascii() else self._twin(canonical)
        except StoreAccessError:
            return path

    def _twin(self, path: str) -> str:
        """The path as it is stored, if only that has the same letters composed otherwise.

        macOS sends the decomposed form (NFD) of names that other systems have composed (NFC).
        """
        found, names = paths.ROOT, path[1:].split("/")
        for number, name in enumerate(names):
            forms = [name, *({normalize("NFC", name), normalize("NFD", name)} - {name})]
            twins = [paths.join(found, form) for form in forms]
            there = twins[0] if len(twins) == 1 else next(filter(self.store.exists, twins), None)
            if there is None:
                return paths.join(found, "/".join(names[number:]))
            found = there
        return found

    def find(self, path: str, *, fresh: bool = False) -> Metadata | None:
        """Metadata of what is at `path`, None for nothing; `fresh` as the service says now."""
        with translated():
            if fresh:
                self.store.forget(path)
            try:
                return self.store.get_metadata(path)
            except NoSuchFilesytemObjectError:
                return None

    def metadata(self, path: str) -> Metadata:
        """Metadata of what is at `path`; DAVError 404 for nothing."""
        return _present(self.find(path))

    def find_target(self, request: DavRequest) -> Metadata | None:
        """What a request is about to change, fresh where it has conditions on the version.

        Cached metadata may not know of another program's edit, which the condition is to protect.
        """
        return self.find(request.path, fresh=names_version(request))

    def find_place(self, request: DavRequest) -> Metadata | None:
        """As find_target, for what is about to be made there.

        Conditions aside, see presumed.
        """
        fresh = names_version(request)
        return self.find_target(request) if fresh else self.presumed(request.path)

    def presumed(self, path: str) -> Metadata | None:
        """As find; where the service cannot be asked and writes succeed without it, nothing.

        Should something be there, it stays beside what is written.
        """
        try:
            return self.find(path)
        except DAVError as error:
            if error.value != 503 or not self._writes_offline:
                raise
            return None

    def target(self, request: DavRequest) -> Metadata:
        """As find_target; DAVError 404 for nothing."""
        return _present(self.find_target(request))

    def quota(self) -> tuple[int | None, int | None]:
        """(available, used) bytes; both or neither, as Finder wants it."""
        with translated():
            free, used = self.store.get_free_space(), self.store.get_used_space()
        return (None, None) if free is None or used is None else (free, used)

    def check_parent(self, path: str) -> None:
        """DAVError 409 unless the folder that is to hold `path` exists, as far as can be known."""
        up = paths.parent(path)
        try:
            is_there = up == paths.ROOT or (self.find(up) or {"is_dir": False})["is_dir"]
        except DAVError as error:
            if error.value != 503 or not self._writes_offline:
                raise
            return
        if not is_there:
            raise DAVError(409, "The parent folder does not exist.")

    @property
    def _writes_offline(self) -> bool:
        return self.store.features.writes_offline

    def check_conditions(self, request: DavRequest, metadata: Metadata | None) -> None:
        """DAVError 412 (304 for a read) unless the request's conditions hold.

        `metadata` is what is at the request's path, None for nothing.
        """
        check_http_conditions(request, metadata and versioned(metadata, request.folder_etag))
        if (header := request.header("If")) is None:
            return
        folder_etags = {self: request.folder_etag}

        def etag_of(tag: str | None) -> str | None:
            tree, path, folder_etag = self._place_of(request, tag) or (None, "", None)
            if tree is None:
                return None
            # A fresh look renews the stamp: the tag is that of before the first.
            folder_etag = folder_etags.setdefault(tree, folder_etag)
            is_own = (tree, path) == (self, request.path)
            found = metadata if is_own else tree.find(path, fresh=names_version(request))
            return versioned(found, folder_etag).get("etag") if found else None

        def tokens_of(tag: str | None) -> frozenset[str]:
            tree, path, _ = self._place_of(request, tag) or (None, "", None)
            if tree is None:
                return frozenset()
            tokens = frozenset(lock.token for lock in tree.state.locks.covering(path))
            return tokens | {tree._sync_token(path)} if PREFIX in header else tokens

        if not if_holds(parse_if(header), etag_of, tokens_of):
            raise DAVError(412, "The If header does not hold.")

    def _place_of(
        self, request: DavRequest, tag: str | None
    ) -> "tuple[DavTree, str, str | None] | None":
        """Of the resource that an If header tags; None where nothing is known of it here.

        The last is the tag of the folders there.
        """
        if tag is None:
            return self, request.path, request.folder_etag
        try:
            place = request.shares.place(request, request.resolve(tag))
        except DAVError:  # on another server
            return None
        if place is None:
            return None
        tree, there, _ = place
        return tree, tree.canonical_path(there.path), there.folder_etag

    def _sync_token(self, path: str) -> str:
        """What RFC 6578 section 5 lets stand in an If header; "" for what is no folder."""
        found = self.find(path)
        is_dir = found is not None and found["is_dir"]
        return SyncTokens(self.store, self.state, path)(path) if is_dir else ""

    def check_locks(
        self, request: DavRequest, path: str, *, tree: bool = False, membership: bool = False
    ) -> None:
        """423 unless the request's tokens open the locks in the way; see LockTable.check_write."""
        header = request.header("If")
        tokens = submitted_tokens(parse_if(header)) if header else frozenset[str]()
        try:
            self.state.locks.check_write(
                path, tokens, request.user, tree=tree, membership=membership
            )
        except LockedError as error:
            raise locked(request, error, "lock-token-submitted") from error


def _present(metadata: Metadata | None) -> Metadata:
    if metadata is None:
        raise DAVError(404, "There is no such file or folder.")
    return metadata


def locked(request: DavRequest, error: LockedError, code: str) -> ConditionError:
    """The 423 answer that names the locks in the way (RFC 4918 section 16)."""
    return ConditionError(423, code, tuple(request.href(root) for root in error.roots))
