"""The command line. What serving needs is imported when it serves: --help comes at once."""

import sqlite3
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from davfusion import __version__, config
from davfusion.commands import COMMANDS
from davfusion.config import (
    ConfigError,
    S3Options,
    ServerConfig,
    ShareConfig,
    given,
    scheme_of,
)

SERVE_HELP = """Serve TARGET as a WebDAV drive.

TARGET is a folder, s3://BUCKET/PREFIX, dropbox:/FOLDER (after `davfusion login dropbox`), or
memory: (lost when the server stops). Several shares, and rights of users, take a file (--config).

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


SIZE = Parsed("size", config.parse_cache_size)
SECONDS = Parsed("seconds", config.parse_seconds)
JUNK = Parsed("kinds", config.parse_junk)
NETWORK = Parsed("address", config.parse_network)
ORIGIN = Parsed("origin", config.parse_origin)
PREFIX = Parsed("path", config.parse_prefix)
USER = Parsed("name:password", _parse_user)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="davfusion")
def command() -> None:
    """Cloud storage and folders as a WebDAV drive."""


@command.command(help=SERVE_HELP, context_settings={"auto_envvar_prefix": "DAVFUSION"})
@click.argument("target", envvar="DAVFUSION_TARGET", required=False)
@click.option(
    "--config",
    "config_file",
    envvar="DAVFUSION_CONFIG",
    type=FILE,
    help="File with all that follows, and with any number of shares; in place of it.",
)
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
    type=ORIGIN,
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
    help="Limit of cached content and unsent writes together; 0: no cache. "
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
    help="What speaks HTTP. granian is faster with many small requests and less strict, "
    "and slow clients can hold up others; it takes davfusion[granian], and Linux.",
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
@click.pass_context
def serve(
    context: click.Context, /, target: str | None, config_file: Path | None, **values: Any
) -> None:
    from davfusion import serving  # noqa: PLC0415

    if config_file:
        _require_alone(context)
        serving.serve_file(config_file)
    elif target:
        serving.serve(_settings(target, values))
    else:
        raise click.UsageError("what is to be served? Give a TARGET, or --config FILE")


def _require_alone(context: click.Context) -> None:
    """A file says all; what it does not say has its default."""
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if param.name != "config_file" and source != ParameterSource.DEFAULT:
            name = param.opts[0] if isinstance(param, click.Option) else "TARGET"
            kind = " (from the environment)" if source == ParameterSource.ENVIRONMENT else ""
            raise click.UsageError(
                f"{name}{kind} beside --config: the file says all, so write it there"
            )


def _settings(target: str, values: dict[str, Any]) -> ServerConfig:
    """The command line as a configuration."""

    def taken(kind: type[Any], prefix: str = "") -> dict[str, Any]:
        known = [field.name for field in fields(kind) if prefix + field.name in values]
        return {name: values[prefix + name] for name in known}

    options = given(S3Options(**taken(S3Options, "s3_"))) if scheme_of(target) == "s3" else {}
    share = ShareConfig(target, options, **taken(ShareConfig))
    server = taken(ServerConfig) | {"users": dict(values["users"])}
    return config.check(ServerConfig({config.ROOT: share}, **server))


@command.command("check-config")
@click.argument("file", type=FILE)
def check_config(file: Path) -> None:
    """Check a configuration file, and whether its stores could be opened. Asks no service."""
    from davfusion import serving  # noqa: PLC0415

    serving.check_file(file)
    click.echo(f"{file}: all is well")


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


def main() -> None:
    """Exit code 0 after a clean stop, 1 with a line on stderr for what cannot work, 2 for usage.

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
        for line in str(error).splitlines() if isinstance(error, ConfigError) else [str(error)]:
            click.echo(f"davfusion: {' '.join(line.split())}", err=True)
        sys.exit(1)


def _is_for_users(error: Exception) -> bool:
    if isinstance(error, ConfigError):
        return True
    from davfusion.server import ServerError  # noqa: PLC0415
    from davfusion.share import ShareError  # noqa: PLC0415
    from davfusion.users import UsersError  # noqa: PLC0415

    return isinstance(error, ServerError | ShareError | UsersError)
