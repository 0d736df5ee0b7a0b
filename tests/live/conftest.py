"""Shares served by `davfusion serve`, one for each kind of store and each HTTP server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from davfusion.stores.fsspec import FsspecStore
from tests.live.serving import Serving, serving
from tests.servers import S3Server


@pytest.fixture(params=["local", "memory", "s3", "dropbox", "sftp", "webdav"])
def share(request: pytest.FixtureRequest, http_name: str, tmp_path: Path) -> Iterator[Serving]:
    """Every store in turn, on granian S3 alone: what is above HTTP is the same."""
    if request.param == "s3":
        yield request.getfixturevalue("s3_share")
        return
    if http_name == "granian":
        pytest.skip("on granian, the share on S3 stands for all")
    if request.param in ("dropbox", "sftp", "webdav"):
        yield request.getfixturevalue(f"{request.param}_share")
        return
    (tmp_path / "files").mkdir()
    target = str(tmp_path / "files") if request.param == "local" else "memory:"
    with serving(target, tmp_path) as server:
        yield server


@pytest.fixture
def s3_share(s3_server: S3Server, bucket: str, tmp_path: Path, http_name: str) -> Iterator[Serving]:
    """A new bucket."""
    env = {"AWS_ENDPOINT_URL": s3_server.endpoint}
    with serving(f"s3://{bucket}", tmp_path, "--server", http_name, env=env) as server:
        yield server


@pytest.fixture
def dropbox_share(dropbox: Any, tmp_path: Path) -> Iterator[Serving]:
    """A folder of a Dropbox that is empty else."""
    dropbox.other.mkdir("/Served")
    with serving("dropbox:/served", tmp_path) as server:
        yield server


@pytest.fixture
def sftp_share(sftp_store: FsspecStore, tmp_path: Path) -> Iterator[Serving]:
    """A new folder of an SSH server."""
    with serving(sftp_store.get_name(), tmp_path) as server:
        yield server


@pytest.fixture
def webdav_share(dav_store: FsspecStore, tmp_path: Path) -> Iterator[Serving]:
    """A new folder of another DAV server, which has each write before it is answered."""
    with serving(dav_store.get_name(), tmp_path, "--write-mode", "through") as server:
        yield server
