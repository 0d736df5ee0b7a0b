"""The part of the conformance suite about uploads that a later try goes on with."""

import io

import pytest

from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    InvalidPathValueError,
    Metadata,
    Store,
)
from tests.samples import BAD_PATHS, BINARY, LARGE, MTIME, contents, put


class KeptUpload:
    """An Upload as its caller keeps it; interrupts from the moment that `interrupted` is set."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.begins: list[str | None] = []
        self.progress = 0
        self.interrupted = False
        self.may_be_directory = True
        self.objection: Exception | None = None

    def is_set(self) -> bool:
        return self.interrupted

    def begun(self, token: str | None) -> None:
        self.token = token
        self.begins.append(token)

    def sent(self, size: int) -> None:
        self.progress += size

    def confirm(self) -> None:
        if self.objection is not None:
            raise self.objection


def resume(store: Store, path: str, content: bytes, upload: KeptUpload) -> Metadata:
    """Store `content` as one try does."""
    return store.store_resumable(io.BytesIO(content), path, upload, modified=MTIME)


class UploadConformance:
    """What StoreConformance includes."""

    @pytest.mark.parametrize("content", [b"", BINARY, LARGE], ids=len)
    def test_a_resumable_upload_is_an_upload(self, store: Store, content: bytes) -> None:
        upload = KeptUpload()
        stored = resume(store, "/parent/file", content, upload)
        assert store.get_file("/parent/file") == content
        assert upload.progress == stored["bytes"] == len(content)
        assert store.get_metadata("/parent/file")["etag"] == stored["etag"]
        assert store.get_modified("/parent/file") == stored["modified"]
        plain = store.store_fileobject(io.BytesIO(content), "/plain", modified=MTIME)
        if store.features.modified_times:
            assert stored["modified"] == plain["modified"]
        store.abandon("/parent/file", upload.token, 0)
        assert store.get_file("/parent/file") == content

    @pytest.mark.parametrize("content", [BINARY, LARGE], ids=len)
    def test_a_resumable_upload_over_one_version(self, store: Store, content: bytes) -> None:
        old = put(store, "/file", b"old")["etag"]
        for stale in (ABSENT, "no-such-etag"):
            upload = KeptUpload()
            with pytest.raises(ConflictError):
                store.store_resumable(io.BytesIO(content), "/file", upload, if_etag=stale)
            assert (upload.progress, upload.token) == (0, None)
        assert store.get_file("/file") == b"old"
        store.store_resumable(io.BytesIO(content), "/file", KeptUpload(), if_etag=old)
        assert store.get_file("/file") == content

    @pytest.mark.parametrize("content", [b"", LARGE], ids=len)
    def test_an_interrupted_resumable_upload(self, store: Store, content: bytes) -> None:
        upload = KeptUpload()
        upload.interrupted = True
        with pytest.raises(InterruptedException):
            resume(store, "/file", content, upload)
        assert contents(store, "/") == {}
        assert (upload.progress, upload.token) == (0, None)

    @pytest.mark.parametrize("content", [b"", BINARY, LARGE], ids=len)
    def test_an_upload_that_is_objected_to(self, store: Store, content: bytes) -> None:
        upload = KeptUpload()
        upload.objection = RuntimeError("damaged")
        with pytest.raises(RuntimeError, match="damaged"):
            resume(store, "/file", content, upload)
        assert contents(store, "/") == {}
        assert (upload.progress, upload.token) == (0, None)

    def test_a_resumable_upload_over_a_directory(self, store: Store) -> None:
        store.create_directory("/dir")
        with pytest.raises(AlreadyExistsError):
            resume(store, "/dir", BINARY, KeptUpload())

    def test_bad_paths_of_uploads(self, store: Store) -> None:
        for path in BAD_PATHS:
            with pytest.raises(InvalidPathValueError):
                resume(store, path, BINARY, KeptUpload())
            with pytest.raises(InvalidPathValueError):
                store.abandon(path, None, 0)

    def test_abandoning_what_was_never_begun(self, store: Store) -> None:
        put(store, "/file", BINARY)
        for token in (None, "no token of anybody"):
            store.abandon("/file", token, 0)
            store.abandon("/none", token, 0)
        assert contents(store, "/") == {"file": BINARY}
