"""What a crash leaves of a change in Dropbox, and how it is put right."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.dropbox.names import ASIDE
from davfusion.stores.store import ConflictError
from tests.conformance import names, put

pytestmark = pytest.mark.live


@pytest.fixture
def store(dropbox: Any) -> Iterator[DropboxStore]:
    del dropbox
    store = DropboxStore()
    yield store
    store.reconnect()


@pytest.mark.parametrize("folder", ["/Share", "/share"])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_what_a_crash_has_left_out_of_the_way(dropbox: Any, folder: str, is_replaced: bool) -> None:
    dropbox.other.mkdir("/Share")
    share = DropboxStore(folder)
    put(share, "/dir/new", b"new")
    put(share, "/dir/File", b"old")
    dropbox.other.move("/Share/dir/File", f"/Share/{ASIDE}/2-0123456789abcdef/dir/File")
    if is_replaced:
        put(share, "/dir/File", b"other")
    assert names(share, "/") == {"dir"}
    assert not share.exists(f"/{ASIDE}")
    share.check_access()
    assert share.get_file("/dir/File") == (b"other" if is_replaced else b"old")
    left = [path for path in dropbox.other.tree() if ASIDE in path]
    assert bool(left) == is_replaced, "nobody knows whether it has been replaced by what was to"
    share.reconnect()


@pytest.mark.parametrize("src", [{}, {"/Src/New": b"new"}], ids=["has gone", "is there"])
@pytest.mark.parametrize(
    "dst", [{}, {"/dst/New": b"new"}, {"/dst/New": b"other"}], ids=["free", "copied", "taken"]
)
def test_what_a_killed_process_had_out_of_the_way(
    store: DropboxStore, dropbox: Any, src: dict[str, bytes], dst: dict[str, bytes]
) -> None:
    """It goes only if what is in its place is what was to be there."""
    aside = f"/{ASIDE}/1-{'0' * 32}"
    dropbox.other.put(f"{aside}/dst/old", b"old")
    for path, content in {**src, **dst}.items():
        dropbox.other.put(path, content)
    is_foreign = bool(src) and b"other" in dst.values()
    with pytest.raises(ConflictError) if is_foreign else nullcontext():
        store.abandon("/dst", f"{aside}/Src", 0)
    found = {path: content for path, content in dropbox.other.tree().items() if content}
    old = {"/dst/old": b"old"} if not dst else {f"{aside}/dst/old": b"old"} if is_foreign else {}
    assert found == {**src, **dst, **old}
