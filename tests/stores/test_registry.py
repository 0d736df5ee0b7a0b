"""From a target to a store."""

import subprocess
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import pytest
from fsspec.registry import _registry, known_implementations

from davfusion.stores.dropbox import DropboxStore
from davfusion.stores.errors import NoSuchFilesytemObjectError
from davfusion.stores.fsspec import FsspecStore
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.registry import EXTRAS, TargetError, open_store
from davfusion.stores.s3 import S3Store


def test_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "file").write_bytes(b"found")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = ["a b", "./a b", str(tmp_path / "a b"), "local:a b", "~/a b", "LOCAL:a b"]
    for target in [*spellings, (tmp_path / "a b").as_uri(), f"file://localhost{tmp_path}/a%20b"]:
        store = open_store(target)
        assert isinstance(store, LocalStore)
        assert store.get_file("/file") == b"found"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NoSuchFilesytemObjectError, match="none"):
        open_store(str(tmp_path / "none"))


def test_s3() -> None:
    @dataclass(frozen=True)
    class Options:
        endpoint_url: str = "http://127.0.0.1:1"
        path_style: bool = True

    for options in (None, Options(), {"region": "eu-central-1"}):
        store = open_store("s3://bucket/some/prefix/", options)
        assert isinstance(store, S3Store)
        where = " at 127.0.0.1:1" if isinstance(options, Options) else ""
        assert store.get_name() == f"s3://bucket/some/prefix{where}"


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("s3://bucket", "s3://bucket/a/b/"),
        ("dropbox:", "dropbox:/A/b"),
        ("webdav://me@host/x", "webdav://me@host/x/a/b/"),
        ("webdav://me@host/x%20y", "webdav://me@host/x%20y/a/b"),
    ],
)
def test_stores_of_one_service_agree_on_where_a_path_lies(outer: str, inner: str) -> None:
    one, other = open_store(outer), open_store(inner)
    assert one.location("/a/b/f") == other.location("/f")
    assert one.location("/a/b") == other.location("/")
    assert one.location("/") != other.location("/")


def test_an_address_is_another_place_to_another_user() -> None:
    stores = [open_store("webdav://host/x", {"username": name}) for name in ("a", "a", "b")]
    one, same, other = (store.location("/f") for store in stores)
    assert one == same != other


def test_dropbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAVFUSION_DROPBOX_TOKEN", raising=False)
    for target in ("dropbox:/some/Folder", "dropbox:some/Folder/", "dropbox://some/Folder"):
        store = open_store(target, {"token_file": tmp_path / "none.json"})
        assert isinstance(store, DropboxStore)
        assert store.get_name() == "dropbox:/some/Folder"
    assert open_store("dropbox:").get_name() == open_store("dropbox:/").get_name() == "dropbox:/"


def test_memory() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store("memory:", {"region": "x"}), MemoryStore)


def test_an_unknown_scheme_names_those_that_exist() -> None:
    with pytest.raises(TargetError) as caught:
        open_store("gopher://host/path")
    for name in (
        "gopher:",
        "local:",
        "file:",
        "s3:",
        "dropbox:",
        "memory:",
        "sftp:",
        "gs:",
        "ftp:",
        "webdav:",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("scheme", sorted(EXTRAS))
def test_a_missing_package_is_named_by_its_extra(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(known_implementations, scheme, {"class": "no_such_package.Class"})
    monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, "davfusion.stores.fsspec.sftp", None)
    with pytest.raises(TargetError, match=rf"pip install 'davfusion\[{EXTRAS[scheme]}\]'"):
        open_store(f"{scheme}://host/path")
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    assert EXTRAS[scheme] in setup["options.extras_require"]


def test_a_host() -> None:
    store = open_store("sftp://me@host:2222/some%20folder/", {"timeout": 5})
    assert isinstance(store, FsspecStore)
    assert store.get_name() == "sftp://me@host:2222/some%20folder"


def test_a_password_is_no_part_of_an_address() -> None:
    with pytest.raises(TargetError, match="DAVFUSION_STORE_PASSWORD") as caught:
        open_store("sftp://me:secret@host/path")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "sftp:",
        "sftp:///path",
        "smb://user@host/",
        "sftp://host/a/../b",
        "",
        "local:",
        "s3:",
        "s3:///x",
        "file://host/x",
        "memory:x",
        "dropbox:a/../b",
    ],
)
def test_incomplete_targets(target: str) -> None:
    with pytest.raises(TargetError):
        open_store(target)


def test_a_folder_needs_no_sdk(tmp_path: Path) -> None:
    program = (
        "import sys; from davfusion.stores.registry import open_store; open_store(sys.argv[1]); "
        "print({'boto3', 'dropbox', 'fsspec'} & sys.modules.keys())"
    )
    shown = subprocess.check_output([sys.executable, "-c", program, str(tmp_path)], text=True)
    assert shown == "set()\n"


@pytest.mark.parametrize("scheme", ["sftp", "ftp", "webdav", "webdavs", "smb"])
def test_options_that_a_scheme_does_not_know(scheme: str) -> None:
    assert open_store(f"{scheme}://host/share", {"password": "x"}).get_name()
    with pytest.raises(TargetError, match=r"no option pasword; there are .*password"):
        open_store(f"{scheme}://host/share", {"pasword": "x"})
