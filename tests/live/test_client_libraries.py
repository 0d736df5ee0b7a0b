"""Clients of other makers over S3 with write-back and two workers; `make client-NAME` runs one."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.live.serving import START_SECONDS, Serving, free_port, large_program, program, run

pytestmark = [pytest.mark.live, pytest.mark.slow]
MEBIBYTE = 1 << 20

WEBDAV4 = """
import sys
from webdav4.client import Client
client = Client(sys.argv[1])
client.mkdir("folder")
client.upload_file(sys.argv[2], "folder/one")
client.copy("folder/one", "folder/two")
client.move("folder/two", "folder/ü +.bin")
assert sorted(client.ls("folder", detail=False)) == ["folder/one", "folder/ü +.bin"]
assert client.content_length("folder/one") == 1048576
assert client.etag("folder/one") and client.modified("folder/one")
client.download_file("folder/ü +.bin", sys.argv[3])
client.remove("folder")
assert not client.exists("folder")
"""
WEBDAVCLIENT3 = """
import sys
from webdav3.client import Client
client = Client({"webdav_hostname": sys.argv[1]})
client.mkdir("folder")
client.upload_sync(remote_path="folder/one", local_path=sys.argv[2])
client.copy(remote_path_from="folder/one", remote_path_to="folder/two")
client.move(remote_path_from="folder/two", remote_path_to="folder/ü.bin")
assert sorted(client.list("folder"))[-2:] == ["one", "ü.bin"]
assert client.info("folder/one")["size"] == "1048576"
client.set_property("folder/one", {"namespace": "urn:x", "name": "colour", "value": "blue"})
assert client.get_property("folder/one", {"namespace": "urn:x", "name": "colour"}) == "blue"
client.download_sync(remote_path="folder/ü.bin", local_path=sys.argv[3])
client.clean("folder")
assert not client.check("folder")
"""
NPM = """
import { createClient } from "webdav";
import { readFileSync, writeFileSync } from "node:fs";
import assert from "node:assert";
const client = createClient(process.argv[2]);
await client.createDirectory("/folder");
await client.putFileContents("/folder/one", readFileSync(process.argv[3]));
await client.copyFile("/folder/one", "/folder/two");
await client.moveFile("/folder/two", "/folder/ü #%.bin");
const names = (await client.getDirectoryContents("/folder")).map((entry) => entry.basename);
assert.deepEqual(names.sort(), ["one", "ü #%.bin"]);
assert.equal((await client.stat("/folder/one")).size, 1048576);
const lock = await client.lock("/folder/one");
await client.unlock("/folder/one", lock.token);
await client.partialUpdateFileContents("/folder/one", 0, 2, "new");
writeFileSync(process.argv[4], await client.getFileContents("/folder/ü #%.bin"));
await client.deleteFile("/folder");
assert.equal(await client.exists("/folder"), false);
"""
DOCUMENT = "<html><body><p>A document.</p></body></html>"


@pytest.fixture(scope="module")
def http_name() -> str:
    """On granian, the clients of test_clients.py stand for all."""
    return "cheroot"


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of a mebibyte."""
    file = tmp_path / "big"
    file.write_bytes(os.urandom(MEBIBYTE))
    return file


@pytest.mark.parametrize("script", [WEBDAV4, WEBDAVCLIENT3], ids=["webdav4", "webdavclient3"])
def test_a_python_library(s3_share: Serving, big: Path, tmp_path: Path, script: str) -> None:
    back = tmp_path / "back"
    run(sys.executable, "-c", script, s3_share.url, str(big), str(back))
    assert back.read_bytes() == big.read_bytes()


def test_npm_webdav(s3_share: Serving, big: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    install = [large_program("npm"), "install", "--no-fund", "--no-audit", "webdav@5.11.0"]
    if subprocess.run(install, cwd=tmp_path, check=False, capture_output=True).returncode:
        pytest.skip("npm cannot get the webdav package")
    (tmp_path / "script.mjs").write_text(NPM)
    run(program("node"), "script.mjs", s3_share.url, str(big), str(back), cwd=tmp_path)
    assert back.read_bytes() == big.read_bytes()


@pytest.mark.large
@pytest.mark.timeout(300)  # 2 GiB each way
def test_webdav_tck_finds_nothing(s3_share: Serving, tmp_path: Path) -> None:
    output = run(program("dav-tck"), "--no-colour", s3_share.url, cwd=tmp_path)
    counted = dict(re.findall(r"│ (\w+)\s+│\s+(\d+) │", output))
    assert counted == {"Total": "67", "Passed": "67"}, output


def test_rclone_syncs_both_ways(s3_share: Serving, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for number in range(200):
        file = here / f"folder {number % 7}" / f"file {number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content {number}\n")
    rclone = [program("rclone"), "--config", "/dev/null", "--webdav-vendor", "owncloud"]
    rclone += ["--webdav-url", s3_share.url, "--webdav-pacer-min-sleep", "0"]
    run(*rclone, "sync", str(here), ":webdav:tree")
    run(*rclone, "sync", ":webdav:tree", str(there))
    (there / "folder 1" / "file 1.txt").write_text("changed there\n")
    (there / "folder 2" / "new.txt").write_text("made there\n")
    shutil.rmtree(there / "folder 3")
    run(*rclone, "sync", str(there), ":webdav:tree")
    run(*rclone, "check", "--download", str(there), ":webdav:tree")
    run(*rclone, "sync", ":webdav:tree", str(here))
    run(*rclone, "check", "--download", str(here), ":webdav:tree")
    assert (here / "folder 1" / "file 1.txt").read_text() == "changed there\n"
    assert not list((here / "folder 3").rglob("*.txt"))
    uploads = s3_share.log.read_text().count('"PUT ')
    os.utime(here / "folder 1" / "file 1.txt", (1_500_000_000, 1_500_000_000))
    run(*rclone, "sync", str(here), ":webdav:tree")
    assert "2017-07-14 02:40:00" in run(*rclone, "lsl", ":webdav:tree/folder 1/file 1.txt")
    assert s3_share.log.read_text().count('"PUT ') == uploads, "by its checksum it is the same"


def test_joplin_syncs_two_profiles(s3_share: Serving, tmp_path: Path) -> None:
    joplin, picture = large_program("joplin"), tmp_path / "picture.txt"
    picture.write_text("a picture")

    def by(profile: str, *command: str) -> str:
        return run(joplin, "--profile", str(tmp_path / profile), *command)

    for profile in ("one", "two"):
        for name, value in (("target", "6"), ("6.path", s3_share.url), ("6.password", "any")):
            by(profile, "config", f"sync.{name}", value)
    by("one", "mkbook", "Book")
    by("one", "use", "Book")
    by("one", "mknote", "first")
    by("one", "set", "first", "body", "written by one")
    by("one", "attach", "first", str(picture))
    by("one", "mknote", "second")
    for profile in ("one", "two"):
        by(profile, "sync")
    by("two", "use", "Book")
    assert "written by one" in by("two", "cat", "first")
    assert [file.read_text() for file in (tmp_path / "two/resources").iterdir()] == ["a picture"]
    by("two", "set", "first", "body", "written by two")
    by("two", "rmnote", "--force", "second")
    for profile in ("two", "one"):
        by(profile, "sync")
    assert "written by two" in by("one", "cat", "first")
    assert by("one", "ls").split() == ["first"]


def printed(share: Serving, beginning: str) -> str:
    """The command that `davfusion serve` prints once it serves."""
    give_up = time.monotonic() + START_SECONDS
    while not (found := re.search(rf"^ +.*: +({beginning}.*)", share.log.read_text(), re.M)):
        assert time.monotonic() < give_up, share.log.read_text()
        time.sleep(0.02)
    return found[1]


def test_gio(s3_share: Serving, big: Path, tmp_path: Path) -> None:
    url = s3_share.url.replace("http:", "dav:")
    steps = f"""set -eu
{printed(s3_share, "gio mount")}
gio mkdir {url}folder
gio copy {big} {url}folder/one
gio rename {url}folder/one 'two ü.bin'
gio copy '{url}folder/two ü.bin' {tmp_path}/back
gio list -l {url}folder
gio save {url}folder/saved < {big}
gio remove '{url}folder/two ü.bin'
gio list {url}folder
gio mount -u {url}
"""
    program("gio")
    output = run(program("dbus-run-session"), "--", "sh", "-c", steps)
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    assert f"two ü.bin\t{MEBIBYTE}" in output
    assert output.endswith("saved\n")


@contextmanager
def mounted(share: Serving, folder: Path) -> Iterator[Path]:
    """The share as a folder; left out where that cannot be, as in many containers."""
    point = folder / "mnt"
    command = _davfs2(share, folder, point)
    _require_mounts()
    point.mkdir(parents=True)
    tried = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if "ermi" in tried.stderr:  # not permitted, permission denied
        pytest.skip(f"this machine may not mount: {tried.stderr}")
    assert tried.returncode == 0, tried.stderr
    try:
        yield point
    finally:
        run("umount", str(point))


def _require_mounts() -> None:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounts need root, and /dev/fuse")


def _davfs2(share: Serving, folder: Path, point: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    settings = folder / "davfs2.conf"
    # Newer kernels ask for more of a folder at a time than its own buffer of 16 KiB holds.
    settings.write_text("ask_auth 0\ndelay_upload 0\nbuf_size 64\n")
    settings.chmod(0o600)
    program("mount.davfs")
    command = printed(share, "mount -t davfs").replace("/mnt", str(point))
    return [*command.split(), "-o", f"conf={settings}"]


SQLITE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("create table if not exists t (x)")
database.executemany("insert into t values (?)", [(n,) for n in range(1000)])
database.commit()
print(*database.execute("select count(*) from t").fetchone())
"""


def test_davfs2_holds_an_archive_and_a_database(s3_share: Serving, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(50):
        (tmp_path / "tree" / f"file {number}").write_bytes(os.urandom(9_999))
    with mounted(s3_share, tmp_path) as point:
        run("tar", "cf", str(point / "tree.tar"), "-C", str(tmp_path), "tree")
        assert run(sys.executable, "-c", SQLITE, str(point / "data.sqlite")) == "1000\n"
    with mounted(s3_share, tmp_path / "again") as point:
        run("tar", "df", str(point / "tree.tar"), "-C", str(tmp_path))
        assert run(sys.executable, "-c", SQLITE, str(point / "data.sqlite")) == "2000\n"


@contextmanager
def mounted_by_rclone(share: Serving, folder: Path) -> Iterator[Path]:
    """As mounted(), with all that was written sent at the end."""
    rclone, control, point = program("rclone"), free_port(), folder / "mnt"
    _require_mounts()
    point.mkdir(parents=True)
    command = printed(share, "rclone mount").replace("/mnt", str(point)).split()
    command = [rclone, *command[1:], "--config", "/dev/null", "--cache-dir", str(folder / "cache")]
    command += ["--webdav-pacer-min-sleep", "0", "--rc-no-auth"]
    with subprocess.Popen([*command, "--rc", "--rc-addr", f"127.0.0.1:{control}"]) as mount:
        while not point.is_mount():
            assert mount.poll() is None
        yield point
        state = [rclone, "rc", "--url", f"http://127.0.0.1:{control}/", "vfs/stats"]
        while not re.search(r'"uploadsInProgress": 0,\s*"uploadsQueued": 0', run(*state)):
            time.sleep(0.2)
        run("umount", str(point))


@pytest.mark.parametrize("mount", [mounted, mounted_by_rclone], ids=["davfs2", "rclone"])
def test_a_mount_holds_a_working_tree(
    s3_share: Serving,
    tmp_path: Path,
    mount: Callable[[Serving, Path], AbstractContextManager[Path]],
) -> None:
    git = [program("git"), "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "gc.auto=0"]
    with mount(s3_share, tmp_path) as point:
        work = point / "work"
        run(*git, "init", "-q", str(work))
        for number in range(20):
            (work / f"file {number}").write_text(f"content {number}\n" * 100)
        run(*git, "add", ".", cwd=work)
        run(*git, "commit", "-q", "-m", "first", cwd=work)
        run(*git, "gc", "-q", cwd=work)
    with mount(s3_share, tmp_path / "again") as point:
        run(*git, "fsck", "--strict", cwd=point / "work")
        assert len(run(*git, "ls-files", cwd=point / "work").splitlines()) == 20
        assert run(*git, "status", "--porcelain", cwd=point / "work") == ""
        assert not list(point.rglob("*.lock"))


def test_libreoffice_opens_and_saves_in_a_mount(s3_share: Serving, tmp_path: Path) -> None:
    office = [
        large_program("soffice"),
        f"-env:UserInstallation=file://{tmp_path}/profile",
        "--headless",
    ]
    with mounted(s3_share, tmp_path) as point:
        (point / "page.html").write_text(DOCUMENT)
        run(
            *office, "--convert-to", "odt:writer8", "--outdir", str(point), str(point / "page.html")
        )
        run(*office, "--convert-to", "txt", "--outdir", str(tmp_path), str(point / "page.odt"))
        assert "A document." in (tmp_path / "page.txt").read_text()
