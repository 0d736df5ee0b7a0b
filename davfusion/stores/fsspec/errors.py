"""What the errors of fsspec's backends mean by the Store contract.

Backends raise the errors of their own libraries beside OSError. These are told by name, so that
no library has to be imported for it.
"""

import errno
import ftplib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from davfusion.stores.errors import (
    AlreadyExistsError,
    ConflictError,
    InterruptedException,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
    UnreachableError,
)
from davfusion.stores.local.errors import store_error as local_error

Meaning = tuple[type[StoreAccessError], int | None]

_KINDS: Final[tuple[tuple[type[Exception], Meaning], ...]] = (
    (FileNotFoundError, (NoSuchFilesytemObjectError, None)),
    (IsADirectoryError, (NoSuchFilesytemObjectError, None)),
    (NotADirectoryError, (NoSuchFilesytemObjectError, None)),
    (FileExistsError, (AlreadyExistsError, None)),
    (PermissionError, (StoreAutorizationError, None)),
    (TimeoutError, (UnreachableError, None)),
    (ConnectionError, (UnreachableError, None)),
    (EOFError, (UnreachableError, None)),
    (NotImplementedError, (StoreAccessError, 501)),
)
_NAMES: Final[dict[str, Meaning]] = {
    "socket.gaierror": (UnreachableError, None),
    "paramiko.NoValidConnectionsError": (UnreachableError, None),
    "paramiko.AuthenticationException": (StoreAutorizationError, None),
    "paramiko.BadHostKeyException": (StoreAutorizationError, None),
    "paramiko.SSHException": (UnreachableError, None),
    "smbprotocol.SMBAuthenticationError": (StoreAutorizationError, None),
    "smbprotocol.LogonFailure": (StoreAutorizationError, None),
    "smbprotocol.AccessDenied": (StoreAutorizationError, None),
    "smbprotocol.BadNetworkName": (NoSuchFilesytemObjectError, None),
    "smbprotocol.SMBConnectionClosed": (UnreachableError, None),
    "aiohttp.ClientConnectionError": (UnreachableError, None),
    "aiohttp.ClientPayloadError": (TransientStoreError, None),
    "requests.ConnectionError": (UnreachableError, None),
    "requests.Timeout": (UnreachableError, None),
    "urllib3.HTTPError": (TransientStoreError, None),
    "azure.ServiceRequestError": (UnreachableError, None),
    "azure.ServiceResponseError": (UnreachableError, None),
}
"""First part of the module and name of the class, for the error or one of its bases."""
_STATUSES: Final[dict[int, type[StoreAccessError]]] = {
    401: StoreAutorizationError,
    403: StoreAutorizationError,
    404: NoSuchFilesytemObjectError,
    408: TransientStoreError,
    412: ConflictError,
    413: StoreSpaceLimitError,
    423: TransientStoreError,
    429: TransientStoreError,
    500: TransientStoreError,
    502: TransientStoreError,
    503: TransientStoreError,
    504: TransientStoreError,
    507: StoreSpaceLimitError,
}
_NT_STATUSES: Final[dict[int, Meaning]] = {
    0xC0000022: (StoreAutorizationError, None),  # access denied
    0xC0000033: (StoreAccessError, 400),  # object name invalid
    0xC0000043: (TransientStoreError, None),  # sharing violation: another program has it open
    0xC0000056: (TransientStoreError, None),  # delete pending: the same
    0xC000007F: (StoreSpaceLimitError, None),  # disk full
}
"""Of SMB (MS-ERREF 2.3.1), where smbprotocol gives them no errno."""
_FTP_FULL: Final = ("452", "552")
_FTP_LOGIN: Final = ("530", "532")


class SourceFailed(BaseException):
    """Carries what reading the source of an upload raised, past all that speaks of the service.

    Connections.lent raises the error itself.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def from_source(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """`blocks`, whose errors pass through backend_errors as they are."""
    try:
        yield from blocks
    except Exception as error:
        raise SourceFailed(error) from error


@contextmanager
def backend_errors(path: str) -> Iterator[None]:
    """Raise what goes wrong inside as an error of the Store contract about `path`."""
    try:
        yield
    except (StoreAccessError, InterruptedException):
        raise
    except Exception as error:
        raise store_error(error, path) from error


def store_error(error: Exception, path: str) -> StoreAccessError:
    """The error of the contract for `error`."""
    text = f"{path}: {str(error) or type(error).__name__}"
    meaning = _meaning(error)
    if meaning is not None:
        kind, status = meaning
        return kind(text, status)
    return local_error(error, path) if isinstance(error, OSError) else StoreAccessError(text)


def status_error(status: int, text: str, retry_after: str | None = None) -> StoreAccessError:
    """The error of the contract for an HTTP status."""
    kind = _STATUSES.get(status, StoreAccessError)
    if issubclass(kind, TransientStoreError):
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
        return TransientStoreError(text, 503, seconds)
    if kind is StoreAccessError and not 400 <= status < 600:
        return kind(text, 502)  # a redirection is for us, not for our clients
    return kind(text, status if kind is StoreAccessError or status == 413 else None)


def _meaning(error: Exception) -> Meaning | None:
    if isinstance(error, ftplib.Error):
        return _ftp_meaning(str(error))
    if isinstance(error, ValueError) and isinstance(error.__cause__, OSError):
        return _meaning(error.__cause__)  # smbprotocol's of a connection
    if type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        return _meaning(error.__cause__)  # adlfs's of a part
    if isinstance(error, OSError) and error.errno is None and str(error) == "Socket is closed":
        return UnreachableError, None  # paramiko's of a session that has ended
    return _by_kind(error) or _by_number(error)


def _by_kind(error: Exception) -> Meaning | None:
    for base in type(error).__mro__:
        name = f"{base.__module__.partition('.')[0]}.{base.__name__}"
        if name in _NAMES:
            return _NAMES[name]
    return next((meaning for kind, meaning in _KINDS if isinstance(error, kind)), None)


def _by_number(error: Exception) -> Meaning | None:
    if meaning := _NT_STATUSES.get(getattr(error, "ntstatus", 0)):
        return meaning
    if isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.EISDIR):
        return NoSuchFilesytemObjectError, None
    status = _status_of(error)
    return (_STATUSES[status], 413 if status == 413 else None) if status in _STATUSES else None


def _status_of(error: Exception) -> int | None:
    """The HTTP status that an SDK's error carries (gcsfs: code, azure: status_code)."""
    for attribute in ("status", "status_code", "code"):
        value = getattr(error, attribute, None)
        if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
            return int(value)
    return None


def _ftp_meaning(reply: str) -> Meaning:
    """By RFC 959 section 4.2.2; 550 says no more than that the file is not to be had."""
    code, text = reply[:3], reply.lower()
    if code in _FTP_FULL:
        return StoreSpaceLimitError, None
    if code in _FTP_LOGIN or (code == "550" and ("denied" in text or "not permitted" in text)):
        return StoreAutorizationError, None
    if code == "421":
        return UnreachableError, None
    if code.startswith("4"):
        return TransientStoreError, None
    if code == "550":
        return (AlreadyExistsError if "exists" in text else NoSuchFilesytemObjectError), None
    return StoreAccessError, 400 if code in ("501", "553") else None
