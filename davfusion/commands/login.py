"""Logging in to services that take no password: whose login it is, and where it is kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from davfusion.config import ConfigError, ShareConfig

_TOKEN_FILE = click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="DAVFUSION_DROPBOX_TOKEN_FILE",
    help="Where the login is kept.  [default: dropbox.json among this user's settings]",
)


@click.group()
def login() -> None:
    """Let davfusion into a service that takes no password."""


@click.group()
def logout() -> None:
    """Take back what `davfusion login` was given."""


@login.command("dropbox")
@click.option("--app-key", envvar="DAVFUSION_DROPBOX_APP_KEY", prompt="App key")
@_TOKEN_FILE
def log_in_to_dropbox(app_key: str, token_file: Path | None) -> None:
    """Log in to Dropbox with an app of yours; docs/dropbox.md says how to make one.

    It prints the address of a page, where you allow the app and get a code to give back here.
    """
    from davfusion.stores.dropbox import credentials  # noqa: PLC0415
    from davfusion.stores.dropbox.login import Login  # noqa: PLC0415

    started = Login(app_key.strip())
    click.echo(f"Open this page, allow the app, and copy the code:\n\n  {started.url}\n")
    with _told_to_the_user():
        who = started.finish(click.prompt("Code"))
        path = credentials.token_file(token_file)
        credentials.keep(who, path)
    click.echo(f"Logged in as {who.account}; the login is kept in {path}, for this user only.")


@logout.command("dropbox")
@_TOKEN_FILE
def log_out_of_dropbox(token_file: Path | None) -> None:
    """Have Dropbox forget the login, and remove it here."""
    from davfusion.stores.dropbox import credentials  # noqa: PLC0415
    from davfusion.stores.dropbox.login import log_out  # noqa: PLC0415

    with _told_to_the_user():
        log_out(credentials.token_file(token_file))
    click.echo("Logged out.")


@contextmanager
def _told_to_the_user() -> Iterator[None]:
    from davfusion.cures import cure  # noqa: PLC0415
    from davfusion.stores.errors import StoreAccessError, TransientStoreError  # noqa: PLC0415

    try:
        yield
    except TransientStoreError as error:
        raise ConfigError(f"{error}; {cure(ShareConfig('dropbox:'), error)}") from error
    except StoreAccessError as error:
        raise ConfigError(str(error)) from error
