"""What keys that others write mean as files and directories: in theory, and on SeaweedFS."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfusion.stores import paths
from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.listing import Entry, Keys, Oddities, Page, Walk, children
from davfusion.stores.s3.upload import MAX_PARTS, MIB, MIN_PART, ranges
from davfusion.stores.store import AlreadyExistsError, NoSuchFilesytemObjectError
from tests.conformance import contents, names, put
from tests.servers import S3Server


def entries(*keys: str) -> list[Entry]:
    return [Entry(key, 0 if key.endswith(("/", "$")) else 1, 0.0, "etag") for key in keys]


def kinds(page: Page, prefix: str = "") -> dict[str, bool] | None:
    found = children([page, page], prefix, Oddities())
    return None if found is None else {name: metadata["is_dir"] for name, metadata in found.items()}


def test_what_shows_a_directory() -> None:
    page = Page(entries("d/", "d/file", "d/hadoop_$folder$", "d/both"), ["d/sub/", "d/both/"])
    assert kinds(page, "d/") == {"file": False, "hadoop": True, "sub": True, "both": True}
    assert kinds(Page(entries("d/")), "d/") == {}
    assert kinds(Page(), "d/") is None
    assert kinds(Page()) == {}


def test_a_hadoop_marker_hides_no_file() -> None:
    assert kinds(Page(entries("name", "name_$folder$"))) == {"name": False}
    walk = Walk(Keys(""), "/", Oddities())
    walked = [path for path, _ in walk.page(Page(entries("x/y_$folder$")))]
    assert walked == ["/x", "/x/y"]


def test_keys_that_are_no_paths_are_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = Oddities()
    page = Page(entries("../x", "./y", "a//b", "good"), ["//", "./"])
    with caplog.at_level(logging.WARNING):
        assert set(children([page], "", odd) or {}) == {"a", "good"}
        assert [path for path, _ in Walk(Keys(""), "/", odd).page(page)] == ["/good"]
    assert len(caplog.records) == 1


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "c-"]), min_size=1, max_size=4).map("/".join),
        unique=True,
        max_size=12,
    ),
    st.randoms(),
)
def test_a_walk_in_any_order_names_directories_first(files: list[str], random: Any) -> None:
    files = [name for name in files if not any(other.startswith(f"{name}/") for other in files)]
    random.shuffle(files)
    walk = Walk(Keys("p/"), "/", Oddities())
    walked = [path for name in files for path, _ in walk.page(Page(entries(f"p/{name}")))]
    assert len(walked) == len(set(walked))
    assert {path for path in walked if path[1:] in files} == {f"/{name}" for name in files}
    for index, path in enumerate(walked):
        assert paths.parent(path) in ["/", *walked[:index]]


@given(st.integers(0, 10_000 * 5 * 1024 * MIB), st.integers(1, 100 * MIB))
def test_parts_are_few_and_whole(size: int, part_size: int) -> None:
    last = count = 0
    for number, start, length in ranges(size, max(part_size, size // 50)):
        assert start == last
        assert length >= MIN_PART or start + length == size
        last, count = start + length, number
    assert last == size
    assert count <= MAX_PARTS


def test_the_largest_object_fits_into_the_parts() -> None:
    size = 10_000 * 5 * 1024 * MIB
    assert sum(1 for _ in ranges(size, 8 * MIB)) == MAX_PARTS


@pytest.fixture
def store(s3_server: S3Server, bucket: str) -> Iterator[S3Store]:
    store = S3Store(bucket, "share", endpoint_url=s3_server.endpoint)
    yield store
    store.reconnect()


@pytest.fixture
def write(s3_client: Any, bucket: str) -> Any:
    """Writes a key of the share as another tool would."""
    return lambda key, **fields: s3_client.put_object(Bucket=bucket, Key=f"share/{key}", **fields)


@pytest.mark.live
def test_directories_that_others_made(store: S3Store, write: Any) -> None:
    write("implied/file", Body=b"1")
    write("marked/")
    write("hadoop_$folder$")
    assert names(store, "/") == {"implied", "marked", "hadoop"}
    for directory in ("/implied", "/marked", "/hadoop"):
        assert store.is_dir(directory)
        assert len(store.get_directory_metadata(directory)) == (directory == "/implied")
        assert list(store.walk_metadata(directory)) is not None
        with pytest.raises(AlreadyExistsError):
            store.create_directory(directory)
        store.duplicate(directory, f"/copy of {directory[1:]}")
        store.move(directory, f"/moved{directory}")
        assert not store.exists(directory)
    assert names(store, "/moved") == {"implied", "marked", "hadoop"}
    store.delete("/moved", is_dir=True)
    store.delete("/copy of hadoop", is_dir=True)
    assert names(store, "/") == {"copy of implied", "copy of marked"}


@pytest.mark.live
def test_a_folder_shadows_a_file_and_harms_it_not(store: S3Store, write: Any) -> None:
    write("both", Body=b"the file")
    write("both/below", Body=b"below")
    assert store.is_dir("/both")
    assert store.get_directory_metadata("/")["both"]["is_dir"]
    assert names(store, "/both") == {"below"}
    with pytest.raises(AlreadyExistsError):
        put(store, "/both", b"over it")
    store.move("/both", "/elsewhere")
    assert contents(store, "/elsewhere") == {"below": b"below"}
    assert store.get_file("/both") == b"the file"
    write("both/below", Body=b"below")
    store.delete("/both", is_dir=True)
    assert not store.is_dir("/both")
    assert store.get_file("/both") == b"the file"
    write("both/below", Body=b"below")
    store.delete("/both/below")
    assert store.exists("/both")


@pytest.mark.live
def test_a_folder_that_the_server_keeps_after_its_last_key(
    store: S3Store, write: Any, s3_client: Any, bucket: str
) -> None:
    write("top/kept/deep/file", Body=b"1")
    s3_client.delete_object(Bucket=bucket, Key="share/top/kept/deep/file")
    for directory in ("/top", "/top/kept", "/top/kept/deep"):
        assert store.is_dir(directory) == store.exists(directory)
        parent = paths.parent(directory)
        assert (paths.name(directory) in names(store, parent)) == store.exists(directory)
    store.delete("/top/kept", is_dir=True)
    assert not store.exists("/top/kept")
    assert not store.exists("/top/kept/deep")
    with pytest.raises(NoSuchFilesytemObjectError):
        store.get_directory_metadata("/top/kept")
    store.delete("/top", is_dir=True)
    assert names(store, "/") == set()


@pytest.mark.live
def test_times_and_types(store: S3Store, write: Any, s3_client: Any, bucket: str) -> None:
    write("rclone", Body=b"1", Metadata={"mtime": "1234567890.123456789"})
    write("odd", Body=b"1", Metadata={"mtime": "yesterday"})
    assert store.get_modified("/rclone") == pytest.approx(1234567890.123456)
    assert store.get_modified("/odd") > 1_700_000_000
    stored = put(store, "/picture.png")
    assert store.get_metadata("/picture.png") == stored
    head = s3_client.head_object(Bucket=bucket, Key="share/picture.png")
    assert head["ContentType"] == stored.get("content_type") == "image/png"
    assert float(head["Metadata"]["mtime"]) == stored["modified"]
