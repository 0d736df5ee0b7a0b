"""Real clients at work: rclone, curl and cadaver."""

import hashlib
import random
from pathlib import Path

import pytest

from tests.live.serving import Serving, program, run

pytestmark = [pytest.mark.live, pytest.mark.slow]
FILES, FOLDERS = 2_000, 40
MEBIBYTE = 1 << 20


def make_tree(root: Path) -> None:
    """2,000 files of 0 to 8 KiB in 40 folders, some with names that need care."""
    rng = random.Random(2518)
    for number in range(FILES):
        folder = root / f"folder {number % FOLDERS}" / ("ü #%" if number % 3 else "plain")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file+{number} & more;.bin").write_bytes(rng.randbytes(rng.randrange(8192)))


def test_rclone_copies_checks_renames_and_deletes_a_tree(s3_share: Serving, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    rclone = [program("rclone"), "--config", "/dev/null", "--webdav-url", s3_share.url]
    rclone += [
        "--webdav-vendor",
        "owncloud",
        "--webdav-pacer-min-sleep",
        "0",
        "--transfers",
        "8",
        "--checkers",
        "8",
    ]

    def on_share(*command: str) -> str:
        return run(*rclone, *command)

    local = str(tmp_path / "tree")
    on_share("copy", local, ":webdav:tree")
    on_share("check", "--download", local, ":webdav:tree")
    on_share("moveto", ":webdav:tree", ":webdav:renamed")
    on_share("check", "--download", local, ":webdav:renamed")
    assert f"Total objects: {FILES / 1000:g}k ({FILES})" in on_share("size", ":webdav:")
    # The times of the files came along.
    assert on_share("copy", "-v", "--dry-run", local, ":webdav:renamed") == ""
    on_share("purge", ":webdav:renamed")
    assert on_share("lsf", ":webdav:") == ""


def test_a_gibibyte_goes_up_and_down_in_little_memory(s3_share: Serving, tmp_path: Path) -> None:
    big, curl = tmp_path / "big", program("curl")
    digest = hashlib.sha256()
    with big.open("wb") as file:
        rng = random.Random(1)
        for _ in range(1024):
            piece = rng.randbytes(MEBIBYTE)
            digest.update(piece)
            file.write(piece)
    run(curl, "--fail", "--silent", "--show-error", "-T", str(big), s3_share.url + "big")
    back = tmp_path / "back"
    run(curl, "--fail", "--silent", "--show-error", "-o", str(back), s3_share.url + "big")
    with back.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    tail = run(curl, "--fail", "--silent", "-r", "-10", "-o", str(back), s3_share.url + "big")
    assert (tail, back.stat().st_size) == ("", 10)
    assert s3_share.peak_memory() < 150 * MEBIBYTE


def test_a_curl_session(share: Serving, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    url = share.url + "folder/f%20%C3%BC.txt"

    def curl(*arguments: str) -> str:
        return run(program("curl"), "--silent", "--show-error", "-w", "%{http_code}", *arguments)

    assert curl("-X", "MKCOL", share.url + "folder/") == "201"
    assert curl("-T", str(tmp_path / "f"), url) == "201"
    assert curl(url) == "content200"
    assert curl("-r", "3-4", url) == "te206"
    assert curl("-T", str(tmp_path / "f"), "-H", 'If-Match: "no"', url)[-3:] == "412"
    moved = share.url + "folder/g"
    assert curl("-X", "MOVE", "-H", f"Destination: {moved}", url) == "201"
    assert curl(url)[-3:] == "404"
    assert curl("-I", moved).startswith("HTTP/1.1 200 OK")
    assert curl("-X", "DELETE", share.url + "folder") == "204"


def test_a_cadaver_session(share: Serving, tmp_path: Path) -> None:
    (tmp_path / "local.txt").write_text("by cadaver\n")
    commands = """mkcol new
cd new
put local.txt one.txt
copy one.txt two.txt
move two.txt three.txt
propset one.txt colour blue
lock one.txt
put local.txt one.txt
unlock one.txt
get three.txt got.txt
ls
propget one.txt colour
delete one.txt
cd ..
rmcol new
ls
quit
"""
    output = run(program("cadaver"), share.url, cwd=tmp_path, stdin=commands)
    assert "failed" not in output.lower(), output
    assert (tmp_path / "got.txt").read_text() == "by cadaver\n"
    assert "blue" in output
    assert "three.txt" in output
