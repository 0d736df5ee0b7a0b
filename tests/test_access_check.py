"""What is asked of the store at a start leaves nothing behind in the process that forks."""

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


@pytest.mark.live
@pytest.mark.parametrize(("mode", "writes"), [("back", "sent later"), ("through", "refused")])
def test_a_store_that_hangs_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Literal["back", "through"], writes: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
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
@pytest.mark.parametrize("status", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE])
def test_a_store_that_is_busy_keeps_no_share_from_being_served(
    tmp_path: Path, status: HTTPStatus
) -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_PROPFIND(self) -> None:
            self.send_error(status)

    with HTTPServer(("127.0.0.1", 0), Busy) as server, closing(Preparation()) as preparation:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        share = ShareConfig(f"webdav://127.0.0.1:{server.server_port}", cache_dir=tmp_path)
        (prepared,) = preparation.prepare(ServerConfig({"/": share}))
        server.shutdown()
    assert prepared.warning is not None
    assert "that may pass by itself. Until it answers" in prepared.warning
