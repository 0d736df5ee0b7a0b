"""DropboxStore: one Dropbox, or what lies below a folder of it, by the official SDK.

Requests are named in the docstrings where their number matters.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from dropbox import files
from dropbox.exceptions import ApiError

from davfusion.stores import paths, walking
from davfusion.stores.aside import Asides
from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.commits import Commits
from davfusion.stores.dropbox.content import MIB
from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.dropbox.feed import DropboxFeed
from davfusion.stores.dropbox.listing import children, look, metadata_of, pages, tree
from davfusion.stores.dropbox.names import ASIDE, Places, require_storable
from davfusion.stores.dropbox.read import open_range
from davfusion.stores.dropbox.relocate import Relocation
from davfusion.stores.dropbox.removal import Removal
from davfusion.stores.dropbox.session import LARGEST
from davfusion.stores.dropbox.streaming import LARGEST_REQUEST
from davfusion.stores.dropbox.upload import Once, Uploader, commit_info
from davfusion.stores.feed import Feed
from davfusion.stores.retry import DEFAULT_POLICY, Effort, RetryPolicy
from davfusion.stores.source import opened
from davfusion.stores.spelling import fold
from davfusion.stores.store import (
    UNDATED_DIRECTORY,
    AlreadyExistsError,
    Features,
    InterruptEvent,
    Metadata,
    NoSuchFilesytemObjectError,
    ReadableStream,
    SourceStream,
    Store,
    StoreAccessError,
    StoreAutorizationError,
    Upload,
)

_FEATURES: Final = Features(
    server_side_copy=True,
    server_side_move=True,
    atomic_move=True,
    exclusive_transfer=True,
    atomic_replace=True,
    conditional_write=True,
    ranged_read=True,
    change_feed=True,
    case_insensitive_names=True,
    hash_kinds=frozenset({"dropbox"}),
    largest_object=LARGEST,
    undated_directories=True,
    modified_times=True,
    flat_listing=True,
)


class DropboxStore(Store):
    """What lies below `folder` of a Dropbox ("": all of it).

    The login is that of `token_file` (None: as credentials.py finds one). A file of `threshold`
    bytes (at most 150 MiB) or more is sent in parts of `part_size`, a multiple of 4 MiB. So is
    one of `part_size` that cannot be read twice, and one of which a try broke off in the middle.

    Removing many files repeats each of its requests by `retry` and then raises
    PartialFailureError; all else is tried once.
    """

    def __init__(
        self,
        folder: str = "",
        *,
        token_file: Path | None = None,
        threshold: int = LARGEST_REQUEST,
        part_size: int = 8 * MIB,
        retry: RetryPolicy = DEFAULT_POLICY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        folder = folder.strip("/")
        self._places = Places(f"/{folder}" if folder else "")
        self._clock = clock
        self._retry = retry
        self._connection = Connection(token_file)
        self._uploader = Uploader(Commits(self._connection), threshold, part_size)
        self._relocation = Relocation(
            self._connection, self._places, self._write_over, self._effort
        )

    @property
    def features(self) -> Features:
        return _FEATURES

    def note_asides(self, asides: Asides) -> None:
        self._relocation.asides = asides

    def require_storable(self, path: str) -> None:
        require_storable(paths.check_path(path))

    def feed(self, position: str | None) -> Feed:
        """As the contract says; two requests for each change, and one in two minutes without."""
        return DropboxFeed(self._connection, self._places, position, time.sleep)

    def check_access(self) -> None:
        """Two requests that show whether the share can be served; what a crash left is put right.

        Raises StoreAutorizationError without a login that Dropbox knows, UnreachableError where
        nobody answers, StoreAccessError for a folder that is not there.
        """
        root = self._places.root
        if root:
            entry = look(self._client, root)
            if not isinstance(entry, files.FolderMetadata):
                raise StoreAccessError(_no_folder(root), 502)
        self._relocation.restore()

    def get_metadata(self, path: str) -> Metadata:
        """As the contract says; one request.

        A name is found in the spelling of the listing alone: what is known above under one
        spelling must not be known under another; see canonical_path.
        """
        if paths.check_path(path) == paths.ROOT:
            return UNDATED_DIRECTORY
        entry = look(self._client, self._places.remote(path))
        if entry is None or entry.name != paths.name(path) or entry.name == ASIDE:
            raise NoSuchFilesytemObjectError(path)
        return metadata_of(entry)

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        """As the contract says; one request for each 2,000 members."""
        remote = self._places.remote(paths.check_path(directory))
        with self._listing(directory):
            return children(pages(self._client, remote))

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """As the contract says; one request for each 2,000 entries, all before the first."""
        return self._walk(paths.check_path(directory))

    def _walk(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        with self._listing(directory):
            remote = self._places.remote(directory)
            below = tree(pages(self._client, remote, recursive=True), remote)
        yield from walking.depth_first(directory, lambda path: below(self._places.remote(path)))

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        """As the contract says; one request. What is read as a whole is compared with its hash."""
        if paths.check_path(path) == paths.ROOT:
            raise NoSuchFilesytemObjectError("the root is a directory")
        return open_range(self._connection, self._places.remote(path), offset, length, etag)

    def store_fileobject(
        self,
        fileobject: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None = None,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        """As the contract says; one request, two while others write, more from `threshold` on.

        Dropbox keeps no types, and times in whole seconds.
        """
        del content_type
        return self._store(fileobject, path, Once(interrupt_event), if_etag, modified)

    def store_resumable(
        self,
        fileobject: BinaryIO,
        path: str,
        upload: Upload,
        *,
        if_etag: str | None = None,
        modified: float | None = None,
        content_type: str | None = None,
    ) -> Metadata:
        """As store_fileobject; parts that Dropbox has are not sent again."""
        del content_type
        return self._store(fileobject, path, upload, if_etag, modified)

    def _store(
        self,
        fileobject: SourceStream,
        path: str,
        upload: Upload,
        if_etag: str | None,
        modified: float | None,
    ) -> Metadata:
        if paths.check_path(path) == paths.ROOT:
            raise AlreadyExistsError("the root is a directory")
        require_storable(path)
        when = self._clock() if modified is None else modified
        commit = commit_info(self._places.remote(path), if_etag, when)
        source = opened(fileobject, upload, LARGEST, self._uploader.held, self._retry)
        return metadata_of(self._uploader.write(source, commit, upload))

    def abandon(self, path: str, token: str | None, since: float) -> None:
        """As the contract says; Dropbox itself forgets unfinished uploads."""
        super().abandon(path, token, since)
        if token is not None and (begun := self._places.begun(token)):
            self._relocation.put_back(*begun)

    def delete(self, path: str, is_dir: bool = False) -> None:
        """As the contract says; two requests, more for a folder of over 10,000 entries."""
        self._require_no_root(path)
        if is_dir:
            self._removal().delete_directory(path)
        else:
            self._removal().delete_file(path)

    def delete_many(self, files: Iterable[str]) -> None:
        """As the contract says; a listing of each folder, a job for each 1,000 files."""
        files = list(files)
        for path in files:
            self._require_no_root(path)
        self._removal().delete_files(files)

    def create_directory(self, directory: str) -> None:
        """As the contract says; one request."""
        if paths.check_path(directory) == paths.ROOT:
            raise AlreadyExistsError("the root exists")
        require_storable(directory)
        with dropbox_errors(self._address(directory)):
            try:
                self._client.files_create_folder_v2(self._places.remote(directory))
            except ApiError as error:
                if "conflict" in tags_of(error):
                    raise AlreadyExistsError(f"{directory} exists") from error
                raise

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """As the contract says; one request, four if a folder is replaced or replaces.

        A file that replaces a file is downloaded and uploaded.
        """
        self._require_ends(path_to_src, path_to_dest)
        self._relocation.duplicate(path_to_src, path_to_dest, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """As duplicate, and a look at the source before."""
        self._require_ends(path_to_src, path_to_dest)
        self._relocation.move(path_to_src, path_to_dest, replace=replace)

    def _write_over(self, src: str, metadata: Metadata, dst: str) -> None:
        with self.open_read(src, etag=metadata["etag"]) as content:
            self.store_fileobject(content, dst, modified=metadata["modified"])

    def get_free_space(self) -> int | None:
        """As the contract says; one request, as each of the next two."""
        used, overall = self._space()
        return None if overall is None else max(0, overall - used)

    def get_used_space(self) -> int | None:
        return self._space()[0]

    def get_overall_space(self) -> int | None:
        return self._space()[1]

    def _space(self) -> tuple[int, int | None]:
        """Used and overall bytes: of the team where the space is shared by one."""
        with dropbox_errors("space of Dropbox"):
            usage = self._client.users_get_space_usage()
        if usage.allocation.is_individual():
            return usage.used, usage.allocation.get_individual().allocated
        if usage.allocation.is_team():
            team = usage.allocation.get_team()
            mine = team.user_within_team_space_allocated
            return (usage.used, mine) if mine else (team.used, team.allocated)
        return usage.used, None

    def get_name(self) -> str:
        """The folder, and whose it is: Dropbox is asked once where the login does not say it.

        Caches are named after it: what waits for one account must not go to another.
        """
        folder, account = f"dropbox:{self._places.root or '/'}", self._connection.account
        return f"{folder} of {account}" if account else folder

    def location(self, path: str) -> str:
        root = f"{self._connection.account} dropbox:{self._places.root}"
        return fold(paths.under(root, path))

    def account_info(self) -> str:
        """The user's name and address; one request."""
        with dropbox_errors("account of Dropbox"):
            account = self._client.users_get_current_account()
        return f"{account.name.display_name} <{account.email}>"

    def reconnect(self) -> None:
        self._connection.reset()

    @property
    def _client(self) -> Any:
        return self._connection.client

    def _effort(self) -> Effort:
        return Effort(self._retry)

    def _removal(self) -> Removal:
        return Removal(self._connection, self._places, self._effort())

    def _address(self, path: str) -> str:
        return f"dropbox:{self._places.remote(path)}"

    @contextmanager
    def _listing(self, directory: str) -> Iterator[None]:
        try:
            with dropbox_errors(self._address(directory)):
                yield
        except NoSuchFilesytemObjectError as error:
            if directory != paths.ROOT:
                raise
            # Not 404: a client that keeps a copy in step would delete all of it.
            raise StoreAccessError(_no_folder(self._places.root), 502) from error

    def _require_ends(self, src: str, dst: str) -> None:
        self._require_no_root(src)
        self._require_no_root(dst)
        require_storable(dst)

    def _require_no_root(self, path: str) -> None:
        if paths.check_path(path) == paths.ROOT:
            raise StoreAutorizationError("the root cannot be replaced or removed")


def _no_folder(root: str) -> str:
    return f"there is no folder {root} in this Dropbox"
