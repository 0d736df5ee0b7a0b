"""The part of the conformance suite about reading and writing one version among others."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from davfusion.stores.store import (
    ABSENT,
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    NoSuchFilesytemObjectError,
    Store,
    StoreAccessError,
    StoreSpaceLimitError,
)
from tests.samples import (
    BINARY,
    LARGE,
    Source,
    SourceError,
    contents,
    fail,
    names,
    put,
    put_all,
    read,
)


class VersionConformance:
    """What StoreConformance includes."""

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, None), (0, 1), (0, 0), (7, 100), (1, None), (4351, 1), (4000, 9999), (4352, None)],
    )
    def test_ranges(self, store: Store, offset: int, length: int | None) -> None:
        put(store, "/file", BINARY)
        end = None if length is None else offset + length
        assert read(store, "/file", offset, length) == BINARY[offset:end]

    def test_ranges_past_the_end(self, store: Store) -> None:
        put(store, "/file", BINARY)
        put(store, "/empty", b"")
        assert read(store, "/file", 99_999) == b""
        assert read(store, "/file", 99_999, 5) == b""
        assert read(store, "/empty") == b""
        assert read(store, "/empty", 0, 10) == b""

    def test_reading_one_version(self, store: Store) -> None:
        old = put(store, "/file", b"old")["etag"]
        with store.open_read("/file", 1, etag=old) as stream:
            assert stream.read() == b"ld"
        new = put(store, "/file", b"new")["etag"]
        with pytest.raises(ConflictError):
            store.open_read("/file", etag=old).read()
        with store.open_read("/file", etag=new) as stream:
            assert stream.read() == b"new"

    def test_an_open_reader_never_sees_a_mixture(self, store: Store) -> None:
        old, new = b"o" * len(LARGE), b"n" * len(LARGE)
        put(store, "/file", old)
        with store.open_read("/file") as stream:
            seen = stream.read(1000)
            put(store, "/file", new)
            with suppress(StoreAccessError):
                seen += b"".join(iter(lambda: stream.read(65536), b""))
                assert len(seen) == len(old)
        assert seen == b"o" * len(seen)
        assert store.get_file("/file") == new

    def test_write_over_one_version(self, store: Store) -> None:
        first = put(store, "/file", b"1")["etag"]
        second = put(store, "/file", b"2", if_etag=first)["etag"]
        for stale in (first, ABSENT, "no-such-etag"):
            with pytest.raises(ConflictError) as caught:
                put(store, "/file", b"3", if_etag=stale)
            assert caught.value.status == 412
        assert store.get_file("/file") == b"2"
        assert store.get_metadata("/file")["etag"] == second

    def test_write_only_where_nothing_is(self, store: Store) -> None:
        with pytest.raises(ConflictError):
            put(store, "/file", if_etag="some-etag")
        assert not store.exists("/file")
        put(store, "/file", b"1", if_etag=ABSENT)
        with pytest.raises(ConflictError):
            put(store, "/file", b"2", if_etag=ABSENT)
        assert store.get_file("/file") == b"1"
        store.create_directory("/dir")
        with pytest.raises((ConflictError, AlreadyExistsError)):
            put(store, "/dir", if_etag=ABSENT)
        store.delete("/file")
        put(store, "/file", b"3", if_etag=ABSENT)

    def test_a_refused_write_leaves_no_parents(self, store: Store) -> None:
        with pytest.raises(ConflictError):
            put(store, "/new/file", if_etag="some-etag")
        assert names(store, "/") == set()

    @pytest.mark.parametrize("content", [b"", b"small", LARGE], ids=len)
    @pytest.mark.parametrize("old", [None, b"old"])
    def test_interrupted_upload(self, store: Store, content: bytes, old: bytes | None) -> None:
        if old is not None:
            put(store, "/file", old)
        event = threading.Event()
        with pytest.raises(InterruptedException):
            store.store_fileobject(Source(content, event.set), "/file", event)
        assert contents(store, "/") == ({} if old is None else {"file": old})
        with pytest.raises(InterruptedException):
            store.store_fileobject(io.BytesIO(content), "/file", event)
        assert contents(store, "/") == ({} if old is None else {"file": old})
        store.store_fileobject(io.BytesIO(content), "/file", threading.Event())
        assert store.get_file("/file") == content

    @pytest.mark.parametrize("content", [b"", b"small", LARGE], ids=len)
    @pytest.mark.parametrize("old", [None, b"old"])
    def test_source_that_breaks_off(self, store: Store, content: bytes, old: bytes | None) -> None:
        before = None if old is None else put(store, "/file", old)
        with pytest.raises(SourceError):
            store.store_fileobject(Source(content, fail), "/file")
        assert contents(store, "/") == ({} if old is None else {"file": old})
        if before is not None:
            assert store.get_metadata("/file")["etag"] == before["etag"]

    def test_a_file_larger_than_the_store_takes(self, store: Store) -> None:
        limit = store.get_max_filesize()
        if limit is None or limit > 10_000_000:
            pytest.skip("no limit that a test could pass")
        put(store, "/file", b"x" * limit)
        for source in (io.BytesIO(b"x" * (limit + 1)), Source(b"x" * (limit + 1))):
            with pytest.raises(StoreSpaceLimitError) as caught:
                store.store_fileobject(source, "/file")
            assert caught.value.status == 413
        assert store.get_bytes("/file") == limit

    def test_threads_write_different_files(self, store: Store) -> None:
        files = [f"/shared/{n}/file" for n in range(24)]
        put_all(store, files)
        assert [store.get_file(path) for path in files] == [path.encode() for path in files]
        assert len(names(store, "/shared")) == 24

    def test_threads_write_one_file(self, store: Store) -> None:
        versions = [bytes([65 + n]) * 300_000 for n in range(8)]
        with ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(put, store, "/file", content) for content in versions]
            while not all(write.done() for write in writes):
                with suppress(NoSuchFilesytemObjectError):
                    assert store.get_file("/file") in versions
            for write in writes:
                write.result()
        assert store.get_file("/file") in versions

    def test_one_of_many_creates(self, store: Store) -> None:
        if not store.features.conditional_write:
            pytest.skip("the service compares no versions")

        def create(content: bytes) -> bytes | None:
            try:
                put(store, "/file", content, if_etag=ABSENT)
            except ConflictError:
                return None
            return content

        with ThreadPoolExecutor(8) as pool:
            winners = [c for c in pool.map(create, [b"%d" % n for n in range(8)]) if c]
        assert winners == [store.get_file("/file")]
