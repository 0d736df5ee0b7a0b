"""Two servers with caches of their own on one bucket, whose users edit the same files."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.live.drive import contents, get, journal, put, wait_for_drain
from tests.live.serving import Serving, serving
from tests.servers import S3Server

pytestmark = [pytest.mark.live, pytest.mark.slow]
ROUNDS, FILES = 5, 20
NAMES = [f"round {number}/letter {file}.txt" for number in range(ROUNDS) for file in range(FILES)]


@pytest.fixture
def servers(
    s3_server: S3Server, s3_client: Any, bucket: str, tmp_path: Path
) -> Iterator[list[Serving]]:
    for name in NAMES:  # before the servers look what there is
        s3_client.put_object(Bucket=bucket, Key=name, Body=b"what both have read")
    env = {"AWS_ENDPOINT_URL": s3_server.endpoint}
    options = ["--write-back-delay", "0.05"]
    with ExitStack() as stack:
        started = []
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
            share = serving(f"s3://{bucket}", tmp_path / name, *options, env=env)
            started.append(stack.enter_context(share))
        yield started


def test_of_two_edits_of_one_version_both_stay(
    servers: list[Serving], s3_client: Any, bucket: str
) -> None:
    rng = random.Random(7)
    edits = {name: [f"{name} by {who}".encode() for who in "ab"] for name in NAMES}
    with ThreadPoolExecutor(8) as pool:
        for name in NAMES:
            for content in pool.map(get, servers, [f"/{name}"] * 2):
                assert content == b"what both have read"
        for number in range(ROUNDS):
            here = NAMES[number * FILES : (number + 1) * FILES]
            writes = [(server, name) for name in here for server in range(2)]
            rng.shuffle(writes)
            done = [
                pool.submit(put, servers[server], f"/{name}", edits[name][server])
                for server, name in writes
            ]
            for each in done:
                each.result()
    for server in servers:
        wait_for_drain(server)
    stored = contents(s3_client, bucket)
    notes = [journal(server, "SELECT path, copy FROM conflict") for server in servers]
    copies = {path[1:]: copy[1:] for path, copy in chain(*notes)}
    logs = "".join(server.log.read_text() for server in servers)
    for name in NAMES:
        assert sorted([stored[name], stored[copies[name]]]) == edits[name]
        assert copies[name].startswith(name[:-4] + " (conflicted copy ")
        assert copies[name].endswith(").txt")
        assert f"/{name} was changed by another program: ours is kept as /{copies[name]}" in logs
    assert len(stored) == 2 * len(NAMES) == 2 * sum(map(len, notes))
