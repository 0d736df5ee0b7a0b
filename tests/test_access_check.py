"""What is asked of the store at a start leaves nothing behind in the process that forks."""

import multiprocessing
import socket
import threading
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Literal

import pytest

from davfusion.config import ServerConfig, ShareConfig
from davfusion.preparing import Preparation
from tests.servers import fault_proxy


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.live
@pytest.mark.parametrize(("mode", "writes"), [("back", "sent later"), ("through", "refused")])
def test_a_store_that_hangs_leaves_no_thread(
    tmp_path: Path, mode: Literal["back", "through"], writes: str
) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        share = ShareConfig(
            "s3://bucket", {"endpoint_url": url}, cache_dir=tmp_path, write_mode=mode
        )
        with closing(Preparation()) as preparation:
            (prepared,) = preparation.prepare(ServerConfig({"/": share}))
    assert prepared.warning is not None
    assert writes in prepared.warning
    assert set(threading.enumerate()) <= before


@pytest.mark.live
@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_service_that_is_out_of_order_is_waited_for(tmp_path: Path, status: int) -> None:
    """What stands before a service that is down answers in its place."""
    with fault_proxy(1) as gateway:
        gateway.rules = [{"action": "status", "status": status}]
        url = f"http://127.0.0.1:{gateway.port}"
        share = ShareConfig("s3://bucket", {"endpoint_url": url}, cache_dir=tmp_path)
        with closing(Preparation()) as preparation:
            (prepared,) = preparation.prepare(ServerConfig({"/": share}))
    assert prepared.warning is not None
    assert "that may pass by itself" in prepared.warning
    assert "sent later" in prepared.warning


@pytest.mark.live
def test_a_refusal_that_comes_late_is_logged_with_its_cure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked, before = threading.Event(), set(multiprocessing.active_children())

    class Late(BaseHTTPRequestHandler):
        def do_PROPFIND(self) -> None:
            asked.wait()
            self.send_error(HTTPStatus.FORBIDDEN)

    with HTTPServer(("127.0.0.1", 0), Late) as server, closing(Preparation()) as preparation:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        target = f"webdav://127.0.0.1:{server.server_port}"
        share = ShareConfig(target, cache_dir=tmp_path)
        (prepared,) = preparation.prepare(ServerConfig({"/": share}))
        asked.set()
        for process in set(multiprocessing.active_children()) - before:
            process.join()
        server.shutdown()
    assert "has not answered yet" in (prepared.warning or "")
    logged = capfd.readouterr().err
    assert f"WARNING {target}: " in logged
    assert "check the user in the address" in logged
