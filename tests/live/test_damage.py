"""Damaged files of the cache folder never cost what was acknowledged (row C12)."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.notes import read_note
from tests.live.drive import ask, cache_of, contents, eventually, get, journal, put, wait_for_drain
from tests.live.line import Line, line, share
from tests.live.serving import serving
from tests.servers import S3Server

__all__ = ["line"]
pytestmark = [pytest.mark.live, pytest.mark.slow]
MB = 1 << 20
SENT = {f"sent {number}": b"sent %d " % number * 30_000 for number in range(3)}
UNSENT = {f"unsent {number}": b"unsent %d " % number * 20_000 for number in range(5)} | {
    "sent 0": b"a newer version" * 1000,
    "folder/in it": b"in a folder",
}
FILES = [
    *(f"{name}.sqlite{end}" for name in ("journal", "listings", "state") for end in ("", "-wal")),
    *(f"{name}.sqlite-shm" for name in ("journal", "listings", "state")),
    *("blocks/cache.db", "blocks/cache.db-wal", "blocks/cache.db-shm"),
    *("share.json", "lock", "mover.lock", "listings.sqlite.lock", "blocks.lock"),
]


def make_cache(line: Line, bucket: str, folder: Path) -> Path:
    """The cache of a server that was killed with changes that had not been sent."""
    with share(line, bucket, folder, "--cache-id", "c") as server:
        for name, content in SENT.items():
            put(server, f"/{name}", content)
        wait_for_drain(server)
        assert ask(server, "PROPFIND", "/", Depth="1").status == 207
        for name, content in SENT.items():
            assert get(server, f"/{name}") == content
        line.cut()
        assert ask(server, "MKCOL", "/folder").status == 201
        for name in UNSENT:
            put(server, f"/{name}", b"not the last version")
        for name, content in UNSENT.items():
            put(server, f"/{name}", content)
        assert ask(server, "DELETE", "/sent 2").status == 204
        server.kill()
    line.up()
    return folder / "cache"


def damage(cache: Path, file: str, how: str) -> None:
    path = cache / "c" / file
    data = path.read_bytes()
    change = {"half": data[: len(data) // 2], "empty": b"", "zeroed": bytes(len(data))}
    path.write_bytes(change[how])


def kept(cache: Path) -> dict[str, bytes]:
    """What was put where nothing is deleted, by path."""
    found = {}
    for path in cache.glob("c/spool/lost+found/*"):
        note = read_note(path)
        if note is not None:
            found[note.path[1:]] = path.read_bytes()[: note.bytes]
    return found


@dataclass(frozen=True)
class Case:
    """One server whose cache has one damaged file."""

    file: str
    how: str

    @property
    def name(self) -> str:
        return f"{self.file.replace('/', ' ')} {self.how}"

    def check(self, cache: Path, bucket: str, client: Any, endpoint: str) -> str | None:
        """What is wrong; all that was acknowledged must be sent, or be kept and reported."""
        folder = cache.parent / self.name
        shutil.copytree(cache, folder / "cache")
        damage(folder / "cache", self.file, self.how)
        for key, content in SENT.items():
            client.put_object(Bucket=bucket, Key=f"{self.name}/{key}", Body=content)
        try:
            missing = self.serve(folder, bucket, endpoint)
            self.judge(contents(client, bucket, f"{self.name}/"), folder, missing)
        except AssertionError as error:
            return f"{self.name}: {error}"[:2000]
        return None

    def serve(self, folder: Path, bucket: str, endpoint: str) -> list[str]:
        """Returns the files whose newest content only lies in lost+found."""
        options = ["--cache-id", "c", "--write-back-delay", "0.1"]
        env = {"AWS_ENDPOINT_URL": endpoint}
        with serving(f"s3://{bucket}/{self.name}", folder, *options, env=env) as server:
            for key, content in UNSENT.items():
                answer = ask(server, "GET", f"/{key}")
                known = (content, SENT.get(key), b"not the last version")
                assert answer.status != 200 or answer.content in known, key
            waiting = "SELECT path, attempts, error FROM pending WHERE state = 'waiting'"
            assert eventually(lambda: not journal(server, waiting), 30), journal(server)
            put(server, "/afterwards", b"works")
            assert eventually(lambda: not journal(server, waiting), 30), journal(server)
            missing = [row[0][1:] for row in journal(server)]
            for key in missing:  # the journal is older than the spool
                assert ask(server, "GET", f"/{key}").status == 500
                put(server, f"/{key}", b"written anew")
            wait_for_drain(server)
            return missing

    def judge(self, stored: dict[str, bytes], folder: Path, missing: list[str]) -> None:
        saved = kept(folder / "cache")
        for key, content in UNSENT.items():
            assert content in (stored.get(key), saved.get(key)), f"{key} is lost"
        assert stored["afterwards"] == b"works"
        assert all(stored[key] == b"written anew" for key in missing)
        log = (folder / "log").read_text()
        assert not saved or "belongs to no pending change: it is kept in" in log


def test_each_metadata_file_in_turn(
    line: Line, bucket: str, s3_server: S3Server, s3_client: Any, tmp_path: Path
) -> None:
    cache = make_cache(line, bucket, tmp_path)
    files = [file for file in FILES if (cache / "c" / file).exists()]
    assert {"journal.sqlite", "journal.sqlite-wal", "blocks/cache.db"} <= set(files)
    cases = [Case(file, how) for file in files for how in ("half", "empty", "zeroed")]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda case: case.check(cache, bucket, s3_client, s3_server.endpoint), cases
        )
        wrong = [problem for problem in found if problem]
    assert not wrong, "\n".join(wrong)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_flipped_bytes_in_the_blocks(line: Line, bucket: str, tmp_path: Path) -> None:
    with share(line, bucket, tmp_path) as server:
        for name, content in SENT.items():
            put(server, f"/{name}", content)
        wait_for_drain(server)
        files = [*cache_of(server).glob("blocks/*/*")]
        assert len(files) >= len(SENT)
        for path in files:
            flip(path, path.stat().st_size // 2)
        for name, content in SENT.items():
            assert get(server, f"/{name}") == content
        index = cache_of(server) / "blocks" / "cache.db"
        for at in range(200, index.stat().st_size, 1500):
            flip(index, at)
            for name, content in SENT.items():
                assert get(server, f"/{name}") == content


def test_a_flipped_byte_in_the_spool_does_not_reach_the_store(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    large = b"large" * (4 * MB)
    with share(line, bucket, tmp_path) as server:
        put(server, "/small", b"the old content")
        put(server, "/large", b"the old content")
        wait_for_drain(server)
        line.cut()
        put(server, "/small", b"the new content")
        put(server, "/large", large)
        put(server, "/sound", b"sound")
        names = journal(server, "SELECT spool FROM pending WHERE path <> '/sound'")
        spool = cache_of(server) / "spool"
        pack, own = sorted((name for (name,) in names), key=lambda name: "@" not in name)
        (path,) = spool.glob(f"*/{own}")
        packed = spool / "packs" / pack.partition("@")[0]
    flip(path, 10)  # while nothing is on its way to the store
    flip(packed, packed.read_bytes().rindex(b"the new content"))
    line.up()
    with share(line, bucket, tmp_path) as server:
        assert eventually(
            lambda: (
                {row[0] for row in journal(server)} == {"/small", "/large"}
                and {row[0] for row in journal(server, "SELECT state FROM pending")} == {"failed"}
            ),
            30,
        ), journal(server)
        assert all("damaged" in row[2] for row in journal(server))
        assert "its content is damaged" in server.log.read_text()
        assert not s3_client.list_multipart_uploads(Bucket=bucket).get("Uploads")
        old = {"small": b"the old content", "large": b"the old content", "sound": b"sound"}
        assert contents(s3_client, bucket) == old
        for name, content in (("small", b"the new content"), ("large", large)):
            put(server, f"/{name}", content)
        wait_for_drain(server)
    assert contents(s3_client, bucket) == {
        "small": b"the new content",
        "large": large,
        "sound": b"sound",
    }
