"""Whose Dropbox it is: from the environment, or from the file that `davfusion login` writes."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import platformdirs

from davfusion.stores.errors import StoreAccessError, StoreAutorizationError

TOKEN: Final = "DAVFUSION_DROPBOX_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE: Final = "DAVFUSION_DROPBOX_TOKEN_FILE"  # noqa: S105 - the same


@dataclass(frozen=True)
class Credentials:
    """An access token that nobody renews, or a refresh token and the key of its app."""

    access_token: str | None = field(default=None, repr=False)
    app_key: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    account: str | None = None
    """For people: whose login it is."""

    def __post_init__(self) -> None:
        if not (self.access_token or (self.refresh_token and self.app_key)):
            raise ValueError("no token")


def token_file(given: Path | None = None) -> Path:
    """Where the login is kept: what is given, or the environment's, or among the user's files."""
    named = given or os.environ.get(TOKEN_FILE)
    return Path(named or platformdirs.user_config_path("davfusion") / "dropbox.json")


def find(given: Path | None = None) -> Credentials:
    """The credentials there are; raises StoreAutorizationError, which says how to get some."""
    if token := os.environ.get(TOKEN):
        return Credentials(access_token=token)
    return read(token_file(given))


def read(path: Path) -> Credentials:
    """Those in a file; raises as find()."""
    try:
        return Credentials(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise StoreAutorizationError(
            f"no login to Dropbox in {path}: run `davfusion login dropbox`"
        ) from error
    except OSError as error:
        raise StoreAutorizationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise StoreAutorizationError(
            f"{path} holds no login: run `davfusion login dropbox`"
        ) from error


def keep(credentials: Credentials, path: Path) -> None:
    """Write a login that only this user can read; an older one is replaced as a whole."""
    new = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(credentials), file)
        new.replace(path)
    except OSError as error:
        raise StoreAccessError(f"cannot write {path}: {error.strerror}") from error
