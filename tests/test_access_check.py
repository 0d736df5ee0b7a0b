"""What is asked of the store at a start leaves nothing behind in the process that forks."""

import socket
import threading
from contextlib import closing
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
