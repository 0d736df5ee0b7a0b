"""SeaweedFS with its S3 gateway on loopback: the store that the servers of a race share."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.processes import HOST, free_port, require_alive, running, wait_until

KEY: Final = "benchmark"
SECRET: Final = "benchmark-secret"  # noqa: S105 - of a server on loopback that ends with us
REGION: Final = "us-east-1"
WEED: Final = Path(sys.executable).with_name("weed")
_GRPC: Final = 10_000
"""SeaweedFS takes a second port, so far above each."""
_ACTIONS: Final = ["Admin", "Read", "Write", "List", "Tagging"]


@dataclass(frozen=True)
class S3:
    """A running server. Who signs nothing may do everything, too: seeding is quicker so."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def client(self) -> Any:
        """The SDK's client, beside all servers of the race."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            config=Config(max_pool_connections=16, s3={"addressing_style": "path"}),
        )


@contextmanager
def running_s3() -> Iterator[S3]:
    """A server with nothing in it, which is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="davfusion-bench-s3-") as name:
        folder = Path(name)
        log, port = folder / "log", free_port(_GRPC)
        with running(_command(folder, port), log) as process:
            server = S3(port)
            wait_until(lambda: _is_ready(server, process, log), "start of SeaweedFS", limit=60)
            yield server
            process.kill()  # nothing of it is kept, and to end by itself takes it 15 seconds


def _command(folder: Path, port: int) -> list[str]:
    config, data = folder / "s3.json", folder / "data"
    data.mkdir()
    known = {"name": "known", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
    identities = [{**known, "actions": _ACTIONS}, {"name": "anonymous", "actions": _ACTIONS}]
    config.write_text(json.dumps({"identities": identities}))
    options = {
        "ip": HOST,
        "ip.bind": HOST,
        "dir": data,
        "filer": "true",
        "s3": "true",
        "s3.port": port,
        "s3.config": config,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "volume.max": 5000,
        "volume.preStopSeconds": 0,
        "master.volumeSizeLimitMB": 1024,
        "master.telemetry": "false",
    }
    options |= {f"{part}.port": free_port(_GRPC) for part in ("master", "volume", "filer")}
    return [str(WEED), "-logtostderr=true", "server", *(f"-{k}={v}" for k, v in options.items())]


def _is_ready(server: S3, process: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether it stores something; it takes connections long before."""
    require_alive(process, log)
    try:
        client = server.client()
        client.create_bucket(Bucket="ready")
        client.put_object(Bucket="ready", Key="ready", Body=b"")
    except (BotoCoreError, ClientError):
        return False
    return True
