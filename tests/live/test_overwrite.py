"""`Overwrite: F` and `If-None-Match: *` of clients that want one name, at two workers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.live.drive import ask, get, put, wait_for_drain
from tests.live.serving import Serving, serving
from tests.servers import S3Server

pytestmark = pytest.mark.live
ROUNDS = 10
THROUGH = ("--write-mode", "through")
BACK = ("--write-mode", "back", "--write-back-delay")


@pytest.fixture(
    params=[("memory", *BACK, "60"), ("s3", *BACK, "60"), ("s3", *BACK, "0.02"), ("s3", *THROUGH)]
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    kind, *options = request.param
    target, env = "memory:", dict[str, str]()
    if kind == "s3":
        s3_server: S3Server = request.getfixturevalue("s3_server")
        target = f"s3://{request.getfixturevalue('bucket')}"
        env = {"AWS_ENDPOINT_URL": s3_server.endpoint}
    with serving(target, tmp_path, *options, env=env) as server:
        yield server


def take(server: Serving, method: str, source: str, name: str) -> int:
    """Have `name` for what is at `source`, or for a new file, if nobody else has it."""
    if method == "PUT":
        return ask(server, "PUT", name, source.encode(), **{"If-None-Match": "*"}).status
    destination = server.url + quote(name[1:])
    return ask(server, method, source, Destination=destination, Overwrite="F").status


def test_one_of_those_who_may_not_replace_gets_the_name(server: Serving) -> None:
    methods = ("MOVE", "COPY", "MOVE", "COPY", "PUT")
    with ThreadPoolExecutor(len(methods)) as pool:
        for number in range(ROUNDS):
            inside = "/in a folder" if number % 2 else ""
            name, sources = f"/new {number}", [f"/{number}-{method}" for method in range(4)]
            for source in sources:
                if inside:
                    assert ask(server, "MKCOL", source).status == 201
                put(server, source + inside, source.encode())
            if "0.02" in server.command:
                wait_for_drain(server)
            takes = [
                pool.submit(take, server, method, source, name)
                for method, source in zip(methods, [*sources, "put"], strict=True)
            ]
            statuses = [each.result() for each in takes]
            assert statuses.count(201) == 1
            assert set(statuses) <= ({201, 412, 405} if inside else {201, 412}), statuses
            winner = statuses.index(201)
            for source in sources[:winner] + sources[winner + 1 :]:
                assert get(server, source + inside) == source.encode()
            if winner == len(sources):
                assert get(server, name) == b"put"
            else:
                assert get(server, name + inside) == sources[winner].encode()
