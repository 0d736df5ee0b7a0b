"""The command line. What serving needs is imported when it serves: --help comes at once."""

import functools
import logging
import platform
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from davfusion import __version__, config
from davfusion.commands import COMMANDS
from davfusion.config import ConfigError, S3Options, ServeConfig

if TYPE_CHECKING:
    import socket

    from _typeshed.wsgi import WSGIApplication

    from davfusion.share import PreparedShare

logger = logging.getLogger(__name__)

SERVE_HELP = """Serve TARGET as a WebDAV drive.

TARGET is a folder, s3://BUCKET/PREFIX, dropbox:/FOLDER (after `davfusion login dropbox`), or
memory: (lost when the server stops).

S3 takes credentials, region, profile and AWS_ENDPOINT_URL from the environment and the files
that every AWS tool reads. Each option can also be given as an environment variable, for example
DAVFUSION_PORT=8080; DAVFUSION_USER takes several users separated by spaces."""


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """A value that a function of ours parses; its errors become usage errors."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _parse_user(text: str) -> tuple[str, str]:
    from davfusion.users import UsersError, parse_user  # noqa: PLC0415

    try:
        return parse_user(text)
    except UsersError as error:
        raise ConfigError(str(error)) from error


SIZE = Parsed("size", config.parse_size)
SECONDS = Parsed("seconds", config.parse_seconds)
JUNK = Parsed("kinds", config.parse_junk)
NETWORK = Parsed("address", config.parse_network)
PREFIX = Parsed("path", config.parse_prefix)
USER = Parsed("name:password", _parse_user)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="davfusion")
def command() -> None:
    """Cloud storage and folders as a WebDAV drive."""


@command.command(help=SERVE_HELP, context_settings={"auto_envvar_prefix": "DAVFUSION"})
@click.argument("target", envvar="DAVFUSION_TARGET")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: any free."
)
@click.option(
    "--user",
    "users",
    multiple=True,
    type=USER,
    envvar="DAVFUSION_USER",
    help="Who may come in; NAME:HASH takes what `davfusion hash-password` prints. "
    "Repeatable. Other programs can see a command line: prefer the environment.",
)
@click.option("--htpasswd", type=FILE, help="File of users, read again when it changes.")
@click.option("--anonymous", is_flag=True, help="Let everyone in, on any address.")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    envvar="DAVFUSION_CORS_ORIGIN",
    help="Origin of web pages that may come, such as https://app.example; repeatable; none: of "
    "no page.  [default: all with users, none without]",
)
@click.option("--read-only", is_flag=True, help="Refuse every change.")
@click.option("--prefix", type=PREFIX, default="", help="Path below which all lies, as /dav.")
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    multiple=True,
    type=NETWORK,
    default=config.LOOPBACK,
    envvar="DAVFUSION_TRUSTED_PROXY",
    help="Address or network of a reverse proxy whose X-Forwarded headers count; repeatable.  "
    "[default: this machine]",
)
@click.option("--tls-cert", type=FILE, help="Certificate chain (PEM), to serve https.")
@click.option("--tls-key", type=FILE, help="Key of the certificate (PEM, not encrypted).")
@click.option("--cache-dir", type=FOLDER, help="Folder of all caches.  [default: this user's]")
@click.option("--cache-id", help="Name of this share's cache.  [default: made from TARGET]")
@click.option(
    "--cache-size",
    type=SIZE,
    default="2000MB",
    show_default=True,
    help="Limit of cached content and unsent writes together; 0: none. "
    "A local folder is not cached.",
)
@click.option(
    "--cache-expiration",
    type=SECONDS,
    help="Seconds until metadata is asked for again.  [default: 60; a folder: always]",
)
@click.option(
    "--write-mode",
    type=click.Choice(["back", "through"]),
    help="back: a write is answered once it is safe on this disk, and sent to the store later; "
    "through: it is answered once the store has it.  [default: back; a folder: through]",
)
@click.option(
    "--write-back-delay",
    type=SECONDS,
    default="1",
    show_default=True,
    help="Seconds that a write waits for the next one of its file before it is sent.",
)
@click.option(
    "--junk",
    type=JUNK,
    default="mac",
    show_default=True,
    help="Files that stay on this machine: mac (._*, .DS_Store), windows (Thumbs.db, desktop.ini), "
    "office (~$*, .~lock.*#), separated by commas, or none.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Processes that answer requests.",
)
@click.option(
    "--server",
    type=click.Choice(["cheroot", "granian"]),
    default="cheroot",
    show_default=True,
    help="What speaks HTTP. granian is faster with many small requests and less strict; "
    "it takes davfusion[granian], and Linux.",
)
@click.option("--s3-endpoint-url", help="S3 server.  [default: AWS_ENDPOINT_URL, or AWS]")
@click.option(
    "--s3-path-style/--s3-virtual-host",
    "s3_path_style",
    default=None,
    help="Bucket in the path or in the host name.  [default: path, except on AWS]",
)
@click.option(
    "--s3-checksums",
    type=click.Choice(["md5", "sdk"]),
    default="md5",
    show_default=True,
    help="sdk: the SDK's CRC trailers, which some servers refuse.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="info shows a line per request.",
)
def serve(
    s3_endpoint_url: str | None, s3_path_style: bool | None, s3_checksums: Any, **values: Any
) -> None:
    s3 = S3Options(s3_endpoint_url, s3_path_style, s3_checksums)
    run(config.check(ServeConfig(**values, s3=s3)))


@command.command("hash-password")
@click.password_option(prompt="Password")
def print_hash(password: str) -> None:
    """Print a hash of a password, for --user NAME:HASH or an htpasswd file."""
    from davfusion.users import UsersError, hash_password  # noqa: PLC0415

    try:
        click.echo(hash_password(password))
    except UsersError as error:
        raise ConfigError(str(error)) from error


for _about_caches in COMMANDS:
    command.add_command(_about_caches)


def run(settings: ServeConfig) -> None:
    """Serve until a signal comes. Raises the errors that main() shows in one line."""
    import davfusion.app  # noqa: F401, PLC0415 - workers have it by the fork, and start at once
    from davfusion import server, share  # noqa: PLC0415
    from davfusion.access_log import configure_logging  # noqa: PLC0415
    from davfusion.users import Users  # noqa: PLC0415

    configure_logging(settings.log_level)
    Users(settings.users, settings.htpasswd)  # an unusable file shows now
    tls = None
    if settings.tls_cert and settings.tls_key:
        tls = server.TlsFiles(settings.tls_cert, settings.tls_key)
        tls.context()
    platform.platform()  # wsgidav asks for it; it runs a program, and workers have it by the fork
    prepared = share.prepare(settings)
    listener = server.bind(settings.host, settings.port)
    make = functools.partial(make_application, settings, prepared)
    send = functools.partial(share.run_mover, settings, prepared) if prepared.sends else None
    spec = server.WorkerSpec(listener, make, tls, settings.log_level, settings.server, send)
    ready = functools.partial(announce, settings, listener, prepared)
    server.Supervisor(spec, settings.workers).run(ready)
    if waiting := share.count_pending(prepared):
        click.echo(
            f"{waiting} changes have not been sent yet: the next start goes on with them, "
            "or `davfusion drain` sends them now"
        )


def make_application(settings: ServeConfig, prepared: "PreparedShare") -> "WSGIApplication":
    """What one worker serves."""
    from davfusion import share  # noqa: PLC0415
    from davfusion.access_log import AccessLog  # noqa: PLC0415
    from davfusion.app import build_app  # noqa: PLC0415
    from davfusion.cors import Cors  # noqa: PLC0415
    from davfusion.host_check import HostCheck  # noqa: PLC0415
    from davfusion.reverse_proxy import ReverseProxy  # noqa: PLC0415

    store, state_path = share.open_share(settings, prepared)
    application: WSGIApplication = build_app(settings, store, state_path)
    application = ReverseProxy(application, settings.trusted_proxies)
    if settings.origins:
        application = Cors(application, settings.origins)
    if not (settings.has_users or settings.anonymous):
        application = HostCheck(application, settings.host)
    return AccessLog(application)


def announce(settings: ServeConfig, listener: "socket.socket", prepared: "PreparedShare") -> None:
    """Say where the share is, how to mount it on this system, and where its cache is."""
    from davfusion.mounting import mount_hints, reachable_names, url_of  # noqa: PLC0415

    port = listener.getsockname()[1]
    tls = settings.tls_cert is not None
    path = settings.prefix.removeprefix("/") + "/" if settings.prefix else ""
    urls = [url_of(name, port, tls=tls) + path for name in reachable_names(settings.host)]
    click.echo(f"Serving {settings.target} on {' and '.join(urls)}")
    for hint in mount_hints(urls[-1], sys.platform, users=settings.has_users):
        click.echo(f"  {hint}")
    click.echo(f"Cache: {prepared.folder}")
    if prepared.sends:
        click.echo("Writes are kept there and sent later: `davfusion status` shows what waits.")
    if prepared.warning:
        click.echo(f"davfusion: {prepared.warning}", err=True)
    sys.stdout.flush()


def main() -> None:
    """Exit code 0 after a clean stop, 1 with one line on stderr for what cannot work, 2 for usage.

    Only errors whose text was written for the user are shown this way.
    """
    try:
        command()
    except sqlite3.OperationalError as error:
        click.echo(f"davfusion: the cache folder cannot be used: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        if not _is_for_users(error):
            raise
        click.echo(f"davfusion: {' '.join(str(error).split())}", err=True)
        sys.exit(1)


def _is_for_users(error: Exception) -> bool:
    if isinstance(error, ConfigError):
        return True
    from davfusion.server import ServerError  # noqa: PLC0415
    from davfusion.share import ShareError  # noqa: PLC0415
    from davfusion.users import UsersError  # noqa: PLC0415

    return isinstance(error, ServerError | ShareError | UsersError)
