"""Real servers for the tests that need them, started once a session on loopback.

The programs that start them lie in a folder of their own, `../shared/testing` beside the
repository or $DAVFUSION_TESTING. Where it is missing, the tests that need it are left out; with
CI=true that is a failure.
"""

import importlib.util
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from uuid import uuid4

import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

REGION = "us-east-1"

ANOTHER_START = Retrying(
    stop=stop_after_attempt(5), retry=retry_if_exception_type(RuntimeError), reraise=True
)
"""SeaweedFS ends at once when it finds a port taken by a connection of a minute ago."""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


DROPBOX_PORT = _free_port()
DROPBOX_HOSTS = dict.fromkeys(
    ("DROPBOX_API_HOST", "DROPBOX_API_CONTENT_HOST", "DROPBOX_API_NOTIFY_HOST", "DROPBOX_WEB_HOST"),
    f"127.0.0.1:{DROPBOX_PORT}",
)
os.environ.update(DROPBOX_HOSTS)  # the SDK reads them when it is imported


class S3Server(Protocol):
    """What s3server.py says of a running server."""

    @property
    def endpoint(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def secret(self) -> str: ...
    def client(self, endpoint: str | None = None) -> Any: ...


def testing_folder() -> Path:
    """Where the programs are, if they are there."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "testing"
    return Path(os.environ.get("DAVFUSION_TESTING", beside))


def is_left_out() -> bool:
    """Whether tests that need these programs cannot run here, and may be left out."""
    there = (testing_folder() / "s3server.py").is_file()
    return not there and os.environ.get("CI") != "true"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here; pytest_terminal_summary says so in one line."""
    if is_left_out():
        needed = {"s3_server", "dropbox_server", "dav_proxy"}
        left_out = [item for item in items if needed & {*getattr(item, "fixturenames", ())}]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line about the tests that were left out."""
    if is_left_out():
        terminalreporter.line(
            f"tests on S3 and Dropbox are left out: no s3server.py in {testing_folder()}"
        )


def testing_program(name: str) -> ModuleType:
    """The program `name` of the shared testing folder, imported; a failure if it is missing."""
    if name in sys.modules:
        return sys.modules[name]
    path = testing_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        pytest.fail(f"{path} is missing: set DAVFUSION_TESTING")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fault_proxy(port: int) -> AbstractContextManager[Any]:
    """A faultproxy.FaultProxy before 127.0.0.1:`port`, until the block ends."""
    running: AbstractContextManager[Any] = testing_program("faultproxy").running_proxy(port)
    return running


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """SeaweedFS, with its keys in the environment."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1")  # files for each new bucket, not 7
        with warnings.catch_warnings():
            # s3server.py keeps the process by its id and drops the Popen that started it.
            warnings.simplefilter("ignore", ResourceWarning)
            for attempt in ANOTHER_START:
                with attempt:
                    server = stack.enter_context(testing_program("s3server").running_s3())
        patch.setenv("AWS_ACCESS_KEY_ID", server.key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server
        os.kill(server.pid, signal.SIGKILL)  # nothing is kept; to end by itself takes it seconds


@pytest.fixture(scope="session")
def s3_client(s3_server: S3Server) -> Iterator[Any]:
    """A client beside the store: the foreign writer of the tests."""
    client = s3_server.client()
    yield client
    client.close()


@pytest.fixture
def bucket(s3_client: Any) -> str:
    """A new bucket."""
    name = f"test-{uuid4().hex}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def shared_bucket(s3_client: Any) -> str:
    """One bucket for all tests that use a prefix of their own."""
    s3_client.create_bucket(Bucket="shared")
    return "shared"


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[Any]:
    """A FaultProxy before the S3 server: rules for faults, a log of all requests."""
    with fault_proxy(int(s3_server.endpoint.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def dropbox_server() -> Iterator[Any]:
    """The emulator of Dropbox, with a login in the environment."""
    emulator = testing_program("dropbox_emulator").running_emulator(port=DROPBOX_PORT)
    with pytest.MonkeyPatch.context() as patch, emulator as server:
        patch.setenv("REQUESTS_CA_BUNDLE", server.cert)
        patch.setenv("DAVFUSION_DROPBOX_TOKEN", server.token)
        yield server


@pytest.fixture
def dropbox(dropbox_server: Any) -> Any:
    """The emulator, as new."""
    settings = type(dropbox_server.settings)()
    dropbox_server.control(reset="all", settings=vars(settings), seed=1)
    dropbox_server.add_token(dropbox_server.token)  # another test may have had it expire
    return dropbox_server


def requests_of(dropbox: Any) -> list[str]:
    """The kinds of requests since it was called last; none may be under way."""
    # It answers before it notes; one that ends after a reset counts as less than none.
    while dropbox.report()["counters"].get("in_flight", 0) > 0:
        time.sleep(0.001)
    log = dropbox.report()["log"]
    dropbox.control(reset="log")
    return [call["endpoint"].removeprefix("files/") for call in log]
