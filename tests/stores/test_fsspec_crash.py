"""What a crash leaves of a change on a server, and how it is put right."""

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from davfusion.cache.asides import NotedAsides
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.fsspec.removal import Removal
from davfusion.stores.fsspec.share import WORK
from tests.conformance import contents, put

pytestmark = pytest.mark.live

NOW = time.time()


def test_what_a_crash_left_is_removed_a_day_later(sftp_store: FsspecStore, tmp_path: Path) -> None:
    put(sftp_store, "/file")
    work = tmp_path / "a root" / WORK
    left, fresh, replaced = (work / name for name in ("upload-left", "upload-new", "replaced-x"))
    for made in (left, fresh, replaced):
        made.write_bytes(b"half")
    for old in (left, replaced):
        os.utime(old, (NOW - 90_000, NOW - 90_000))
    sftp_store.check_access()
    assert set(work.iterdir()) == {fresh, replaced}
    assert contents(sftp_store, "/") == {"file": b"content"}


@pytest.mark.parametrize("src", [{}, {"new": b"new"}], ids=["has gone", "is there"])
@pytest.mark.parametrize("dst", [{}, {"old": b"other"}], ids=["is free", "is taken"])
def test_what_a_killed_process_had_out_of_the_way(
    sftp_store: FsspecStore, tmp_path: Path, src: dict[str, bytes], dst: dict[str, bytes]
) -> None:
    """It goes only if what is in its place has come from where it was to come from."""
    aside = f"/{WORK}/replaced-1-{'0' * 32}"
    work = tmp_path / "a root" / WORK
    (tmp_path / "a root" / aside[1:]).mkdir(parents=True)
    (tmp_path / "a root" / aside[1:] / "old").write_bytes(b"old")
    for name, content in {**src, **dst}.items():
        put(sftp_store, f"/{name}", content)
    with closing(NotedAsides(tmp_path / "asides", lambda _paths: None)) as asides:
        asides.unfinished("/old", f"{aside}/new")(True)
        assert asides.settle(sftp_store, sftp_store)
        assert asides.settle(sftp_store, sftp_store)
    assert contents(sftp_store, "/") == {"old": b"old"} | src | dst
    left = {path.name for path in work.rglob("*") if path.is_file()}
    assert left == ({"old"} if src and dst else set())


def test_a_crash_leaves_nothing_of_what_has_been_replaced(
    sftp_store: FsspecStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_self: Removal, _directory: str) -> None:
        raise KeyboardInterrupt

    put(sftp_store, "/old/dir/file", b"old")
    put(sftp_store, "/new/file", b"new")
    with monkeypatch.context() as patch:
        patch.setattr(Removal, "tree", killed)
        with pytest.raises(KeyboardInterrupt):
            sftp_store.move("/new", "/old")
    work = tmp_path / "a root" / WORK
    assert list(work.rglob("dir"))
    sftp_store.check_access()
    assert not list(work.iterdir())
    assert contents(sftp_store, "/") == {"old": None, "old/file": b"new"}
