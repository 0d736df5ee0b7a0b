"""What a user may do about an error of a store, for each kind of store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from davfusion.config import ShareConfig, scheme_of
from davfusion.stores.errors import (
    StoreAccessError,
    StoreAutorizationError,
    TransientStoreError,
    UnreachableError,
)


@dataclass(frozen=True)
class _Cures:
    away: str = "check the network and the address"
    """Where the service does not answer."""
    refused: str = "check the credentials that fsspec's class for it takes, and their rights"
    other: str = "check the address and the options of the store"


_HOST: Final = _Cures(
    "check the network, and the host and port of the address",
    "check the user in the address, DAVFUSION_STORE_PASSWORD or ~/.netrc, and that user's rights",
    "check the folder in the address",
)
_SSH: Final = _Cures(
    _HOST.away,
    "check that `sftp USER@HOST` logs in, by a key in ~/.ssh or with DAVFUSION_STORE_PASSWORD, and "
    "that user's rights",
    _HOST.other,
)
_GOOGLE: Final = _Cures(
    refused="check GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"
)
_AZURE_KEYS: Final = (
    "check AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME and "
    "AZURE_STORAGE_ACCOUNT_KEY"
)
_AZURE: Final = _Cures(
    refused=f"{_AZURE_KEYS}, and their rights",
    other=f"{_AZURE_KEYS}, and the container in the address",
)
_DRIVE_LOGIN: Final = (
    "docs/stores.md says how Google Drive takes a service account (options token and creds)"
)
_DRIVE: Final = _Cures(refused=_DRIVE_LOGIN, other=_DRIVE_LOGIN)
_GITHUB: Final = _Cures(
    refused="check the options username and token; without them it answers few requests an hour",
    other="check the address: github://ORG:REPO@BRANCH/FOLDER",
)
_CURES: Final[Mapping[str, _Cures]] = {
    "": _Cures(
        refused="give this user the permission to read it, or start as another",
        other="check the name",
    ),
    "s3": _Cures(
        "check the network and the address (--s3-endpoint-url, AWS_ENDPOINT_URL)",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and their rights",
        "check the name of the bucket and the --s3 options",
    ),
    "dropbox": _Cures(
        "check the network: api.dropboxapi.com must be in reach",
        "docs/dropbox.md says how to log in",
        "check the folder in the address",
    ),
    **dict.fromkeys(("sftp", "ssh"), _SSH),
    **dict.fromkeys(("ftp", "smb", "webdav", "webdavs"), _HOST),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    **dict.fromkeys(("abfs", "abfss", "az"), _AZURE),
    "gdrive": _DRIVE,
    "github": _GITHUB,
}
"""By scheme; a folder has none."""


def cure(config: ShareConfig, error: StoreAccessError) -> str:
    """What to do about `error` of the share's store."""
    scheme = scheme_of(config.target)
    found = _CURES.get("" if scheme in ("local", "file") else scheme, _Cures())
    if isinstance(error, UnreachableError):
        return found.away
    if isinstance(error, TransientStoreError):
        return "that may pass by itself"
    return found.refused if isinstance(error, StoreAutorizationError) else found.other
