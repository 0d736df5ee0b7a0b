"""The client of one S3 service: settings, credentials as every AWS tool finds them, connections."""

import base64
import functools
import hashlib
import io
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from davfusion import __version__
from davfusion.stores import connection
from davfusion.stores.background import BackgroundPool
from davfusion.stores.errors import StoreAccessError
from davfusion.stores.s3.errors import s3_errors
from davfusion.stores.s3.pages import read_pages

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client

CONNECTIONS: Final = 32
CONNECT_SECONDS: Final = 10
READ_SECONDS: Final = 60

Checksums = Literal["md5", "sdk"]


@dataclass(frozen=True)
class ClientSettings:
    """Where the service is and how to speak to it; None: as the environment says.

    checksums: `md5` sends Content-MD5, which every S3 server knows; `sdk` the SDK's CRC
    trailers, which some refuse. path_style None: the bucket goes into the path for an endpoint
    of one's own, into the host name for AWS.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool | None = None
    checksums: Checksums = "md5"
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


class Connection(connection.Connection["S3Client"]):
    """The client of one service."""

    def __init__(self, settings: ClientSettings) -> None:
        make = s3_errors("S3 client")(make_client)
        super().__init__(lambda: make(settings), BackgroundPool(CONNECTIONS, "s3"))


@functools.cache
def _loader() -> "Loader":
    """The SDK's description of S3, read once; workers have it from the supervisor by the fork."""
    loader: Loader = botocore.session.get_session().get_component("data_loader")
    return loader


def make_session(settings: ClientSettings) -> boto3.Session:
    """Profile, region and credentials as every AWS tool finds them."""
    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    return boto3.Session(
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        aws_session_token=settings.session_token,
        botocore_session=core,
        profile_name=settings.profile,
        region_name=settings.region,
    )


def make_client(settings: ClientSettings) -> "S3Client":
    """A client that never retries by itself: retry.py says when to."""
    session = make_session(settings)
    config = _config(settings)
    if _wants_path_style(settings):
        config = config.merge(Config(s3={"addressing_style": "path"}))
    try:
        client = session.client("s3", endpoint_url=settings.endpoint_url, config=config)
    except ValueError as error:  # what the SDK raises for an address that is no URL
        raise StoreAccessError(f"{error}; an endpoint begins with http:// or https://") from error
    read_pages(client)
    if settings.checksums == "md5":
        client.meta.events.register("before-call.s3.DeleteObjects", _send_content_md5)
    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register(f"request-created.s3.{operation}", _spare_expect)
    return client


def _wants_path_style(settings: ClientSettings) -> bool:
    """Any endpoint but AWS's own, wherever it was set: few others have a host name a bucket."""
    if settings.path_style is not None:
        return settings.path_style
    return bool(foreign_host(settings))


def is_aws(url: str) -> bool:
    """Whether a service at `url` is AWS's own."""
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def foreign_host(settings: ClientSettings) -> str:
    """`host:port` of the server that all settings together name, empty for AWS; no request.

    Empty also where they name none, which the first request reports.
    """
    environment = (item for item in os.environ.items() if item[0].startswith("AWS_"))
    return _foreign_host(settings, frozenset(environment))


@functools.cache
def _foreign_host(settings: ClientSettings, _environment: frozenset[tuple[str, str]]) -> str:
    """Looked up once; workers have it from the supervisor by the fork."""
    try:
        session = make_session(settings)
        # Credentials that are given are not looked for, and that search may ask a server.
        client = session.client(
            "s3",
            endpoint_url=settings.endpoint_url,
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 - it signs nothing
            config=Config(defaults_mode="legacy"),  # type: ignore[arg-type]
        )
    except (BotoCoreError, ValueError):
        return ""
    with closing(client):
        url = str(client.meta.endpoint_url)
    return "" if is_aws(url) else urlsplit(url).netloc.rpartition("@")[2]


def _config(settings: ClientSettings) -> Config:
    when: Literal["when_required", "when_supported"] = (
        "when_required" if settings.checksums == "md5" else "when_supported"
    )
    return Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        # The SDK's own is put together anew for each request, a sixth of what that costs.
        user_agent=f"davfusion/{__version__}",
        request_checksum_calculation=when,
        response_checksum_validation=when,
    )


def content_md5(digest: bytes) -> str:
    """The value of a Content-MD5 header (RFC 1864)."""
    return base64.b64encode(digest).decode()


def _spare_expect(request: "AWSRequest", operation_name: str, **_: object) -> None:
    """The round trip of asking whether a body is wanted, which a condition seldom forbids.

    Not for a large body with a condition: a server that refuses it may not read it to its end.
    """
    if operation_name == "UploadPart" or isinstance(request.data, io.BytesIO):
        del request.headers["Expect"]


def _send_content_md5(params: Mapping[str, Any], **_: object) -> None:
    """DeleteObjects must carry a digest; older servers know no other than Content-MD5."""
    params["context"].pop("checksum", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = content_md5(digest)
