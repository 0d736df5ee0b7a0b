"""What keys that others write mean as files and directories: in theory, and on SeaweedFS."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davfusion.stores import paths
from davfusion.stores.s3 import S3Store
from davfusion.stores.s3.listing import PROBE, Entry, Keys, Oddities, Page, Walk, children
from davfusion.stores.s3.upload import MAX_PART, MAX_PARTS, MIB, MIN_PART, ranges
from davfusion.stores.source import UNTOLD
from davfusion.stores.store import (
    AlreadyExistsError,
    InvalidPathValueError,
    NoSuchFilesytemObjectError,
)
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
    walked = [*walk.page(Page(entries("x/y_$folder$"))), *walk.rest()]
    assert [path for path, _ in walked] == ["/x", "/x/y"]


def test_keys_that_are_no_paths_are_left_out_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    odd = Oddities()
    page = Page(entries("../x", "./y", "a//b", "good"), ["//", "./"])
    with caplog.at_level(logging.WARNING):
        assert set(children([page], "", odd) or {}) == {"a", "good"}
        walk = Walk(Keys(""), "/", odd)
        assert [path for path, _ in [*walk.page(page), *walk.rest()]] == ["/a", "/good"]
    assert len(caplog.records) == 1


SEGMENTS = ["", "..", "a", "a-b", "a!", "a0", "b", "_$folder$", "a_$folder$", f"{PROBE}1"]
KEYS = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map("/".join).filter(bool)
ORDERS: list[Callable[[list[str]], list[str]]] = [
    sorted,
    lambda keys: sorted(keys, key=lambda key: key.split("/")),
]


def listed(keys: list[str], prefix: str) -> Page:
    """What a server answers of `keys` to a listing with a delimiter."""
    below = [key for key in keys if key.startswith(prefix)]
    files = [key for key in below if "/" not in key[len(prefix) :]]
    marker = [key for key in below if key == prefix]
    inner = {prefix + key[len(prefix) :].partition("/")[0] + "/" for key in below}
    return Page(
        entries(*files, *marker),
        sorted(folder for folder in inner if any(key.startswith(folder) for key in below)),
    )


def recursively(keys: list[str], directory: str = "/") -> dict[str, bool]:
    """Path -> whether it is a directory, of listing directory by directory."""
    prefix = Keys("").folder(directory)
    seen: dict[str, bool] = {}
    for name, metadata in (children([listed(keys, prefix)], prefix, Oddities()) or {}).items():
        path = paths.join(directory, name)
        seen[path] = metadata["is_dir"]
        if metadata["is_dir"]:
            seen |= recursively(keys, path)
    return seen


@given(st.lists(KEYS, unique=True, max_size=12), st.integers(1, 4), st.sampled_from(ORDERS))
def test_a_walk_shows_what_listing_directory_by_directory_shows(
    keys: list[str], size: int, order: Callable[[list[str]], list[str]]
) -> None:
    keys = order(keys)
    walk = Walk(Keys(""), "/", Oddities())
    pages = [keys[start : start + size] for start in range(0, len(keys), size)]
    found = [item for page in pages for item in walk.page(Page(entries(*page)))] + [*walk.rest()]
    walked = [path for path, _ in found]
    assert len(set(walked)) == len(walked)
    assert {path: metadata["is_dir"] for path, metadata in found} == recursively(keys)
    for index, path in enumerate(walked):
        below = [paths.is_below(other, path) for other in walked[index + 1 :]]
        assert below == sorted(below, reverse=True), "others in between"
        assert paths.parent(path) in ["/", *walked[:index]]


def test_a_walk_holds_few_files_back() -> None:
    walk = Walk(Keys(""), "/", Oddities())
    for number in range(50):
        shown = list(walk.page(Page(entries(*(f"{number:02}{n:02}" for n in range(20))))))
        assert len(shown) >= 19
    assert len(list(walk.rest())) == 1


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


@pytest.mark.parametrize("part_size", [1, 8 * MIB, MAX_PART])
def test_parts_of_what_nobody_knows_the_size_of(part_size: int) -> None:
    parts = list(ranges(UNTOLD, part_size))
    assert [number for number, _, _ in parts] == list(range(1, MAX_PARTS + 1))
    assert all(MIN_PART <= length <= MAX_PART for _, _, length in parts)
    assert [start for _, start, _ in parts[1:]] == [start + n for _, start, n in parts[:-1]]
    assert parts[-1][1] + parts[-1][2] >= 5 * 1000**4


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
def test_a_file_and_a_hadoop_marker_of_one_name(store: S3Store, write: Any) -> None:
    write("a", Body=b"file")
    write("a_$folder$")
    assert not store.is_dir("/a")
    assert store.get_file("/a") == b"file"
    for directory in ("/a", "/none"):
        with pytest.raises(NoSuchFilesytemObjectError):
            store.get_directory_metadata(directory)
        with pytest.raises(NoSuchFilesytemObjectError):
            list(store.walk_metadata(directory))
    assert contents(store, "/") == {"a": b"file"}


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


@pytest.mark.live
@pytest.mark.parametrize("is_empty", [False, True], ids=["implied", "kept by the server"])
def test_a_directory_that_is_made_is_not_gone_with_what_showed_it(
    store: S3Store, write: Any, s3_client: Any, bucket: str, is_empty: bool
) -> None:
    """SeaweedFS removes a folder without a marker minutes after the last key in it."""
    write("dir/file", Body=b"1")
    if is_empty:
        s3_client.delete_object(Bucket=bucket, Key="share/dir/file")
    with pytest.raises(AlreadyExistsError):
        store.create_directory("/dir")
    store.delete("/dir/file")
    listed = s3_client.list_objects_v2(Bucket=bucket, Prefix="share/dir/")
    assert [entry["Key"] for entry in listed["Contents"]] == ["share/dir/"]


TOO_LONG = [f"/{'x' * 1018}", f"/{'é' * 509}", f"/{'d' * 500}/{'e' * 518}"]
TAKEN = ["/dir_$folder$", "/x_$folder$/file", f"/{PROBE}1"]


@pytest.mark.live
@pytest.mark.parametrize("path", TOO_LONG + TAKEN, ids=lambda path: path[:12])
def test_names_that_are_refused(store: S3Store, path: str) -> None:
    put(store, "/file")
    for write in (put, S3Store.create_directory, S3Store.require_storable):
        with pytest.raises(InvalidPathValueError):
            write(store, path)
    for transfer in (store.move, store.duplicate):
        with pytest.raises(InvalidPathValueError):
            transfer("/file", path)
    assert not store.exists(path)
    store.delete(path)
    assert names(store, "/") == {"file"}


def test_nobody_is_asked_about_a_key_that_is_too_long() -> None:
    store = S3Store(
        "bucket",
        endpoint_url="http://127.0.0.1:1",
        region="us-east-1",
        access_key_id="key",
        secret_access_key="secret",
    )
    path = "/" + "x" * 1025
    assert not store.exists(path)
    with pytest.raises(NoSuchFilesytemObjectError):
        store.get_directory_metadata(path)
    store.delete(path)
    store.reconnect()


@pytest.mark.live
def test_the_longest_key(store: S3Store, s3_client: Any, bucket: str) -> None:
    path = f"/{'d' * 200}" * 4 + f"/{'e' * 213}"
    store.require_storable(path)
    assert len(f"share{path}/") == 1024
    assert not store.exists(path), "its markers would be too long to ask for"
    put(store, path)
    assert store.get_file(path) == b"content"
    store.delete(path)
    store.create_directory(path)
    assert s3_client.head_object(Bucket=bucket, Key=f"share{path}/")
    store.delete(path, is_dir=True)
