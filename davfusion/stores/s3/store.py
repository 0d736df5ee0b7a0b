"""S3Store: a bucket, or what lies below a prefix of it, on AWS or any other S3 server.

Files are plain objects under their own names; listing.py says what shows a directory. Requests
are named in the docstrings where their number matters.
"""

import mimetypes
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, BinaryIO, Final

from davfusion.stores import paths
from davfusion.stores.aside import Asides
from davfusion.stores.retry import DEFAULT_POLICY, Effort, RetryPolicy
from davfusion.stores.s3 import leftovers
from davfusion.stores.s3.bucket import BATCH, Bucket, Head
from davfusion.stores.s3.change import Change
from davfusion.stores.s3.client import Checksums, ClientSettings, Connection, foreign_host
from davfusion.stores.s3.copy import Copier
from davfusion.stores.s3.listing import Keys, Oddities, Walk, children
from davfusion.stores.s3.look import look, require_folder_suffix
from davfusion.stores.s3.pages import unquoted
from davfusion.stores.s3.quirks import Conditions
from davfusion.stores.s3.read import open_range
from davfusion.stores.s3.resume import ResumableUpload, abandon, token_of
from davfusion.stores.s3.upload import LARGEST, MAX_PART, MIB, Uploader
from davfusion.stores.source import Source, opened
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
    StoreAutorizationError,
    Upload,
)

MTIME: Final = "mtime"
"""User metadata with the modification time in seconds, as rclone and s3fs write and read it."""
UNKNOWN_TYPE: Final = "application/octet-stream"


class S3Store(Store):
    """The objects of `bucket` whose keys begin with `prefix`, as files and directories.

    Credentials, region, profile and endpoint come from where every AWS tool takes them unless
    they are given. Sizes are in bytes: from `multipart_threshold` on a file is sent in parts of
    `part_size` (at least 5 MiB), above `copy_limit` it is copied in parts. `batch` is how many
    keys one listing or DeleteObjects is about, 1,000 at most.

    What takes several requests (delete, move, duplicate) repeats each of them by `retry` and then
    raises GivenUpError or PartialFailureError; all else is tried once.
    """

    def __init__(  # noqa: PLR0913 - the settings of an S3 service
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        path_style: bool | None = None,
        checksums: Checksums = "md5",
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        session_token: str | None = None,
        multipart_threshold: int = 16 * MIB,
        part_size: int = 8 * MIB,
        copy_limit: int = MAX_PART,
        batch: int = BATCH,
        retry: RetryPolicy = DEFAULT_POLICY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        prefix = prefix.strip("/")
        self._keys = Keys(f"{prefix}/" if prefix else "")
        self._address = f"s3://{bucket}/{prefix}".rstrip("/")
        self._clock = clock
        self._retry = retry
        self._hash_kinds = frozenset({"md5" if checksums == "md5" else "crc32"})
        self._settings = ClientSettings(
            endpoint_url,
            region,
            profile,
            path_style,
            checksums,
            access_key_id,
            secret_access_key,
            session_token,
        )
        self._connection = Connection(self._settings)
        self._bucket = Bucket(bucket, self._connection, batch)
        self._conditions = Conditions(self._bucket, self._keys.prefix)
        self._uploader = Uploader(
            self._bucket, self._conditions, checksums == "md5", multipart_threshold, part_size
        )
        self._copier = Copier(self._bucket, self._uploader, copy_limit)
        self._odd = Oddities()

    @property
    def features(self) -> Features:
        """What is known so far; conditional_write is True once the server has shown it."""
        return Features(
            server_side_copy=self._bucket.abilities.server_side_copy,
            server_side_move=self._bucket.abilities.server_side_copy,
            atomic_replace=True,
            conditional_write=self._conditions.are_heeded,
            ranged_read=True,
            undated_directories=True,
            flat_listing=True,
            modified_times=True,
            hash_kinds=self._hash_kinds,
            largest_object=LARGEST,
        )

    def require_storable(self, path: str) -> None:
        self._keys.require_storable(paths.check_path(path))

    def note_asides(self, asides: Asides) -> None:
        def note(key: str, upload_id: str) -> Callable[[bool], None]:
            return asides.unfinished(self._keys.path(key), token_of(upload_id))

        self._uploader = replace(self._uploader, note=note)
        self._copier = replace(self._copier, uploader=self._uploader)

    def check_access(self) -> None:
        """A request that shows whether the share can be served at all; then two that clean up.

        What is left of a crash is removed: probes older than an hour, and below the prefix
        multipart uploads that were begun a week ago or earlier, by whatever tool.

        Raises StoreAutorizationError for bad or missing credentials, TransientStoreError for an
        endpoint that does not answer, StoreAccessError for a missing bucket, profile or region.
        """
        self._bucket.holds(self._keys.prefix)
        leftovers.sweep(self._bucket, self._keys.prefix, self._clock())

    def probe_conditions(self) -> None:
        """Find out now whether the server heeds conditions; writes throw-away keys.

        The first conditional write of each kind does it otherwise.
        """
        self._conditions.probe()

    def get_metadata(self, path: str) -> Metadata:
        """As the contract says; HEAD and LIST at once, and one HEAD more if both find nothing."""
        if paths.check_path(path) == paths.ROOT:
            return UNDATED_DIRECTORY
        (found,) = look(self._bucket, self._keys, path)
        if found.is_folder:
            return UNDATED_DIRECTORY
        if found.head is not None:
            return _file_metadata(found.head)
        require_folder_suffix(self._bucket, self._keys, path)
        return UNDATED_DIRECTORY

    def get_directory_metadata(self, directory: str) -> dict[str, Metadata]:
        """As the contract says; one LIST for each 1,000 members."""
        prefix = self._keys.folder(paths.check_path(directory))
        members = children(self._bucket.pages(prefix, delimiter="/"), prefix, self._odd)
        if members is None:
            require_folder_suffix(self._bucket, self._keys, directory)
        return members or {}

    def walk_metadata(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        """As the contract says; one LIST for each 1,000 files, however many directories."""
        return self._walk(paths.check_path(directory))

    def open_read(
        self, path: str, offset: int = 0, length: int | None = None, etag: str | None = None
    ) -> ReadableStream:
        """As the contract says; one GET."""
        if paths.check_path(path) == paths.ROOT:
            raise NoSuchFilesytemObjectError("the root is a directory")
        return open_range(self._bucket, self._keys.file(path), offset, length, etag)

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
        """As the contract says; one LIST, then one PUT or a multipart upload.

        The time is always stored beside the content, so it never changes afterwards.
        """
        self.require_storable(path)
        threshold = self._uploader.threshold
        source = opened(fileobject, interrupt_event, LARGEST, threshold, self._retry)
        self._require_no_directory(path)
        write = partial(self._uploader.write, self._keys.file(path), source, if_etag=if_etag)
        return self._store(path, source, write, modified, content_type)

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
        """As the contract says; one LIST where there may be a directory, then one PUT or parts.

        An earlier try costs a ListParts for each 1,000 parts it sent.
        It is begun anew for another `modified` or `content_type`: S3 keeps those of the beginning.
        """
        self.require_storable(path)
        resumable = ResumableUpload(self._uploader, self._keys.file(path), upload)
        if modified is None and resumable.fields:
            modified = _modified(resumable.fields)
        with resumable.kept_for_another_try():
            source = opened(fileobject, upload, LARGEST, self._uploader.threshold)
            if upload.may_be_directory or path == paths.ROOT:
                self._require_no_directory(path)
            write = partial(resumable.write, source, if_etag=if_etag)
            return self._store(path, source, write, modified, content_type)

    def abandon(self, path: str, token: str | None, since: float) -> None:
        """As the contract says; uploads of that key by other tools cannot be told from ours."""
        abandon(self._bucket, self._keys.file(paths.check_path(path)), token, since)

    def _store(
        self,
        path: str,
        source: Source,
        write: Callable[[dict[str, Any]], str],
        modified: float | None,
        content_type: str | None,
    ) -> Metadata:
        """Call `write` with the fields of the object that is to be `path`."""
        when = self._clock() if modified is None else modified
        kind = content_type or mimetypes.guess_type(paths.name(path))[0] or UNKNOWN_TYPE
        etag = write({"ContentType": kind, "Metadata": {MTIME: repr(float(when))}})
        return Metadata(
            modified=when, bytes=source.size, is_dir=False, etag=etag, content_type=kind
        )

    def _require_no_directory(self, path: str) -> None:
        if path == paths.ROOT or self._bucket.shows(self._keys.folder(path)):
            raise AlreadyExistsError(f"{path} is a directory")

    def delete(self, path: str, is_dir: bool = False) -> None:
        """As the contract says; a file's parent is looked at before and after.

        A directory costs a LIST and a DeleteObjects for each 1,000 keys, and four more requests.
        """
        self._require_no_root(path)
        change = self._change()
        if is_dir:
            change.delete_directory(path)
        else:
            change.delete_files([path])

    def delete_many(self, files: Iterable[str]) -> None:
        """As the contract says; one DeleteObjects for each 1,000 files, two LISTs a directory.

        One without a marker costs a LIST more, and a PUT if that leaves it empty.
        """
        files = list(files)
        for path in files:
            self._require_no_root(path)
        self._change().delete_files(files)

    def create_directory(self, directory: str) -> None:
        """As the contract says: stores an empty marker.

        Also where the directory shows by what is in it, or by what SeaweedFS keeps of it for a
        while: it must not go with that.
        """
        self.require_storable(directory)
        try:
            present = self.get_metadata(directory)
        except NoSuchFilesytemObjectError:
            self._bucket.mark(self._keys.folder(directory))
            return
        if present["is_dir"] and directory != paths.ROOT:
            self._bucket.keep(self._keys.folder(directory))
        raise AlreadyExistsError(f"{directory} exists")

    def duplicate(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """As the contract says; a file costs two HEADs, two LISTs and one CopyObject."""
        self._require_no_root(path_to_src)
        self._require_no_root(path_to_dest)
        self.require_storable(path_to_dest)
        self._change().duplicate(path_to_src, path_to_dest, replace=replace)

    def move(self, path_to_src: str, path_to_dest: str, *, replace: bool = True) -> None:
        """As the contract says; a file costs three HEADs, two LISTs, CopyObject and DeleteObject.

        Out of its directory it costs two LISTs more, and a PUT if that leaves it empty.
        """
        self._require_no_root(path_to_src)
        self._require_no_root(path_to_dest)
        self.require_storable(path_to_dest)
        self._change().move(path_to_src, path_to_dest, replace=replace)

    def get_name(self) -> str:
        """The address, and the server where that is not AWS; no request."""
        return self._name

    @cached_property
    def _name(self) -> str:
        host = foreign_host(self._settings)
        return f"{self._address} at {host}" if host else self._address

    def location(self, path: str) -> str:
        return paths.under(f"{foreign_host(self._settings)} {self._address}", path)

    def warm_up(self, connections: int) -> bool:
        """As the contract says; a LIST on each connection, that of the first is of the root."""
        submit = self._connection.pool.submit
        others = [submit(self._bucket.holds, self._keys.prefix) for _ in range(connections - 1)]
        page = self._bucket.first(self._keys.prefix, "/")
        for other in others:
            other.result()
        return page.following is None

    def reconnect(self) -> None:
        self._connection.reset()

    def _walk(self, directory: str) -> Iterator[tuple[str, Metadata]]:
        walk = Walk(self._keys, directory, self._odd)
        is_there = False
        for page in self._bucket.pages(self._keys.folder(directory)):
            is_there = is_there or bool(page)
            yield from walk.page(page)
        yield from walk.rest()
        if not is_there and not self._bucket.shows(self._keys.folder(directory)):
            require_folder_suffix(self._bucket, self._keys, directory)

    def _require_no_root(self, path: str) -> None:
        if paths.check_path(path) == paths.ROOT:
            raise StoreAutorizationError("the root cannot be replaced or removed")

    def _change(self) -> Change:
        """An operation of several requests, with tries of its own."""
        return Change(self._bucket.trying(Effort(self._retry)), self._copier, self._keys)


def _file_metadata(head: Head) -> Metadata:
    return Metadata(
        modified=_modified(head),
        bytes=head["ContentLength"],
        is_dir=False,
        etag=unquoted(head.get("ETag")),
        content_type=head.get("ContentType", UNKNOWN_TYPE),
    )


def _modified(head: Mapping[str, Any]) -> float:
    """The time that the writer gave, or else that of the upload."""
    try:
        return float(head["Metadata"][MTIME])
    except (KeyError, ValueError):
        return float(head["LastModified"].timestamp())
