"""Shares of several services as one tree, by a file that alone has the credentials."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.drive import ask, cache_of, contents, eventually, get, keys, put
from tests.live.serving import Serving, free_port, serving, started
from tests.servers import S3Server

pytestmark = pytest.mark.live
CONTENT = b"".join(hashlib.sha512(number.to_bytes(4, "big")).digest() for number in range(300_000))
PROPERTY = (
    b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><x xmlns="urn:x:">kept</x></D:prop></D:set>'
    b"</D:propertyupdate>"
)


@pytest.fixture
def server(s3_server: S3Server, bucket: str, tmp_path: Path) -> Iterator[Serving]:
    (tmp_path / "files").mkdir()
    (tmp_path / "secret").write_text(s3_server.secret + "\n")
    port, file = free_port(), tmp_path / "davfusion.yaml"
    file.write_text(
        f"""
        port: {port}
        cache_dir: caches
        shares:
          cloud:
            target: s3://{bucket}/prefix
            options:
              endpoint_url: {s3_server.endpoint}
              region: us-east-1
              access_key_id: ${{KEY_ID}}
              secret_access_key: file:secret
            write_back_delay: 0.2
          small: {{target: "s3://{bucket}/small", cache_size: 4MB, write_back_delay: 0.2,
            options: {{endpoint_url: "{s3_server.endpoint}", region: us-east-1,
            access_key_id: "${{KEY_ID}}", secret_access_key: "file:secret"}}}}
          disk: {{target: files}}
        """
    )
    command = [sys.executable, "-m", "davfusion", "serve", "--config", str(file)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    env |= {"KEY_ID": s3_server.key, "TMPDIR": str(tmp_path / "none")}
    server = Serving(command, env, port, tmp_path / "log", tmp_path / "caches")
    with started(server):
        yield server
    assert s3_server.secret not in server.log.read_text()


def test_files_go_to_another_service_and_back(
    server: Serving, s3_client: Any, bucket: str, tmp_path: Path
) -> None:
    """Without a temporary folder of the system: each cache receives what it is to send."""
    put(server, "/cloud/a", CONTENT)
    assert ask(server, "PROPPATCH", "/cloud/a", PROPERTY).status == 207
    for source, target in (
        ("/cloud/a", "/disk/b"),
        ("/disk/b", "/small/c"),  # larger than all of its cache
        ("/small/c", "/cloud/d"),
    ):
        moved = ask(server, "MOVE", source, Destination=target)
        assert moved.status == 201, (source, server.log.read_text())
        assert ask(server, "HEAD", source).status == 404
        if target == "/disk/b":
            assert (tmp_path / "files" / "b").read_bytes() == CONTENT
    assert get(server, "/cloud/d") == CONTENT
    assert b">kept</" in ask(server, "PROPFIND", "/cloud/d", Depth="0").content
    assert eventually(lambda: keys(s3_client, bucket) == {"prefix/d"})
    assert contents(s3_client, bucket) == {"prefix/d": CONTENT}
    assert server.peak_memory() < 300 << 20


KILLED = """
import os, sys
from pathlib import Path
from davfusion.cache.folder import CacheFolder
from davfusion.stores.local import LocalStore
from davfusion.stores.memory import MemoryStore
from davfusion.stores.transfer import copy_between
from tests.conformance import put
class Source(MemoryStore):
    def open_read(self, path, *args, **kwargs):
        if path == "/folder/second":
            os._exit(9)
        return super().open_read(path, *args, **kwargs)
class Share(LocalStore):
    cache = Path(sys.argv[2])
    asides = CacheFolder(cache.parent, cache.name).asides
source = Source()
put(source, "/folder/first")
put(source, "/folder/second")
copy_between(source, "/folder", Share(sys.argv[1]), "/target")
"""


def test_what_a_killed_worker_was_building_is_removed_by_the_next(tmp_path: Path) -> None:
    """A folder was to take the place of a file."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "target").write_bytes(b"old")
    with serving(str(files), tmp_path) as server:
        killed = [sys.executable, "-c", KILLED, str(files), str(cache_of(server))]
        assert subprocess.run(killed, check=False).returncode == 9
        assert list(files.glob(".davfusion-*/first"))
        os.kill(server.workers()[0], signal.SIGKILL)
        assert eventually(lambda: not list(files.glob(".davfusion-*/first")))
        assert get(server, "/target") == b"old"
