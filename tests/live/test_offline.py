"""The store cannot be reached: at the start, and in the middle of work (row C19)."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from davfusion.cache.folder import CacheFolder
from davfusion.cache.status import read_status
from tests.live.drive import (
    Answer,
    ask,
    cache_of,
    contents,
    eventually,
    get,
    journal,
    move,
    put,
    wait_for_drain,
)
from tests.live.line import Line, line, share
from tests.live.serving import Serving
from tests.spooled import sizes

__all__ = ["line"]
pytestmark = [pytest.mark.live, pytest.mark.slow]


def is_put_off(answer: Answer) -> bool:
    return answer.status == 503 and int(answer.headers["retry-after"]) > 0 and answer.seconds < 5


def propfind(server: Serving, path: str) -> Answer:
    return ask(server, "PROPFIND", path, Depth="1")


@pytest.mark.parametrize("outage", ["cut", "hang"])
def test_a_start_without_the_store(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, outage: str
) -> None:
    for key in ("known/read", "known/unread", "known/old", "known/gone", "unknown/there"):
        s3_client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    with share(line, bucket, tmp_path) as server:
        assert propfind(server, "/").status == 207
        assert propfind(server, "/known").status == 207
        assert get(server, "/known/read") == b"known/read"
    getattr(line, outage)()
    with share(line, bucket, tmp_path) as server:
        # Other programs may take the machine meanwhile, but not each time.
        assert any(starts_soon(server) for _ in range(3))
        assert get(server, "/known/read") == b"known/read"
        for path in ("/known/unread", "/unknown/there"):
            assert is_put_off(ask(server, "GET", path))
        assert is_put_off(propfind(server, "/unknown"))
        write_without_the_store(server)
        assert is_put_off(ask(server, "GET", "/unknown/nobody knows"))
        assert journal(server)
        cache = CacheFolder(server.cache, cache_of(server).name)
        assert read_status(cache).away is not None
        line.up()
        wait_for_drain(server, 30)
        assert eventually(lambda: read_status(cache).away is None, 10)
        (copy,) = journal(server, "SELECT copy FROM conflict WHERE path = '/unknown/there'")[0]
        assert eventually(lambda: ask(server, "GET", "/unknown/there").status == 200, 10)
        assert get(server, "/unknown/there") == b"unknown/there"
    assert contents(s3_client, bucket) == {
        "known/read": b"rewritten",
        "known/unread": b"known/unread",
        "known/new": b"new",
        "made/in it": b"in a new folder",
        "unknown/there": b"unknown/there",
        copy[1:]: b"ours",
        "unknown/other": b"other",
        "known/moved": b"to be moved",
    }


def starts_soon(server: Serving) -> bool:
    """Start it again; whether it lists what it knows within two seconds."""
    server.stop()
    start = time.monotonic()
    server.start()
    first = propfind(server, "/known")
    seconds = time.monotonic() - start
    assert first.status == 207
    assert b"/known/unread" in first.content
    return seconds < 2


def write_without_the_store(server: Serving) -> None:
    for path, content in {
        "/known/read": b"rewritten",
        "/known/new": b"new",
        "/known/to move": b"to be moved",
        "/known/short-lived": b"never sent",
        "/unknown/there": b"ours",
        "/unknown/other": b"other",
    }.items():
        put(server, path, content)
        assert get(server, path) == content
    assert ask(server, "MKCOL", "/made").status == 201
    put(server, "/made/in it", b"in a new folder")
    assert ask(server, "DELETE", "/known/old").status == 204
    assert ask(server, "DELETE", "/known/gone").status == 204
    assert ask(server, "DELETE", "/known/short-lived").status == 204
    assert move(server, "/known/to move", "/known/moved").status == 201
    listed = propfind(server, "/known").content
    assert b"/known/moved" in listed
    assert b"/known/old" not in listed
    assert ask(server, "GET", "/known/old").status == 404


@pytest.mark.parametrize("outage", ["cut", "hang"])
def test_down_and_up_in_the_middle_of_work(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, outage: str
) -> None:
    model: dict[str, bytes] = {}
    with share(line, bucket, tmp_path) as server:
        for number in range(6):
            assert ask(server, "MKCOL", f"/{number}").status == 201
            if number % 2:
                getattr(line, outage)()
            else:
                line.up()
            for file in range(15):
                name, content = f"{number}/{file}", b"%d %d" % (number, file) * 5000
                put(server, f"/{name}", content)
                put(server, f"/shared {file}", content)
                model |= {name: content, f"shared {file}": content}
        line.up()
        wait_for_drain(server, 30)
        assert journal(server, "SELECT * FROM conflict") == []
        assert eventually(lambda: propfind(server, "/").status == 207, 10)
        assert contents(s3_client, bucket) == model
        assert not sizes(cache_of(server) / "spool")


@pytest.mark.parametrize("outage", ["cut", "hang"])
def test_what_needs_the_store_is_put_off(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, outage: str
) -> None:
    """Moving what is there, and writing what is larger than the cache: a server for each.

    A server that knows that the store is away would put the others off at once.
    """
    s3_client.put_object(Bucket=bucket, Key="known/file", Body=b"content")
    methods = ["MOVE", "COPY", "PUT"]
    with ExitStack() as stack:
        servers = []
        for method in methods:
            (tmp_path / method).mkdir()
            served = share(line, bucket, tmp_path / method, "--cache-size", "8MB")
            servers.append(stack.enter_context(served))
            for path in ("/", "/known"):
                assert propfind(servers[-1], path).status == 207
        getattr(line, outage)()
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(begin_to_change, servers, methods))
        assert all(map(is_put_off, answers)), answers
        line.up()
    assert contents(s3_client, bucket)["known/file"] == b"content"


def begin_to_change(server: Serving, method: str) -> Answer:
    if method == "PUT":
        return begin_to_write(server, "/large", 9 << 20)
    return ask(server, method, "/known", Destination=server.url + "elsewhere")


def test_writes_through_are_put_off_and_replace_nothing_newer(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path
) -> None:
    """What is given up is carried out late, when others have written there."""
    methods = ["PUT", "DELETE", "MOVE", "COPY"]
    for method in methods:
        s3_client.put_object(Bucket=bucket, Key=method, Body=b"content")
    with share(line, bucket, tmp_path, "--write-mode", "through") as server:
        assert propfind(server, "/").status == 207
        line.late(8)
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(partial(change, server), methods))
        assert all(map(is_put_off, answers)), answers
        line.prompt()
        written = [*methods, "to MOVE", "to COPY"]
        for path in written:
            assert eventually(partial(is_written, server, f"/{path}"), 30)
        time.sleep(4)  # longer than any of them may be late yet
    assert contents(s3_client, bucket) == dict.fromkeys(written, b"newer")


@pytest.mark.parametrize("outage", ["cut", "hang"])
def test_a_write_through_is_put_off(
    line: Line, bucket: str, s3_client: Any, tmp_path: Path, outage: str
) -> None:
    s3_client.put_object(Bucket=bucket, Key="PUT", Body=b"content")
    with share(line, bucket, tmp_path, "--write-mode", "through") as server:
        assert propfind(server, "/").status == 207
        getattr(line, outage)()
        answer = change(server, "PUT")
        assert is_put_off(answer), answer
    assert contents(s3_client, bucket) == {"PUT": b"content"}


def change(server: Serving, method: str) -> Answer:
    headers = {"Destination": f"{server.url}to%20{method}"} if method in ("MOVE", "COPY") else {}
    return ask(server, method, f"/{method}", b"older" if method == "PUT" else None, **headers)


def is_written(server: Serving, path: str) -> bool:
    answer = ask(server, "PUT", path, b"newer")
    assert answer.status in (201, 204) or is_put_off(answer), answer
    return answer.status < 300


def begin_to_write(server: Serving, path: str, size: int) -> Answer:
    """The answer to the headers of a PUT that waits to be asked for its body."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        start = time.monotonic()
        connection.putrequest("PUT", path)
        connection.putheader("Content-Length", str(size))
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, b"", time.monotonic() - start)
