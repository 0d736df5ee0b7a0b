"""What an error of the operating system means by the Store contract."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from davfusion.stores.errors import (
    AlreadyExistsError,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
)
from davfusion.stores.local.workfolder import NAME

_MEANINGS: dict[int | None, tuple[type[StoreAccessError], int | None]] = {
    errno.ENOENT: (NoSuchFilesytemObjectError, None),
    errno.EEXIST: (AlreadyExistsError, None),
    errno.EISDIR: (AlreadyExistsError, None),
    errno.EACCES: (StoreAutorizationError, None),
    errno.EPERM: (StoreAutorizationError, None),
    errno.EROFS: (StoreAutorizationError, None),
    errno.ENOSPC: (StoreSpaceLimitError, None),
    errno.EDQUOT: (StoreSpaceLimitError, None),
    errno.EFBIG: (StoreSpaceLimitError, 413),
    errno.ENOTDIR: (StoreAccessError, 409),
    errno.ENOTEMPTY: (StoreAccessError, 409),  # somebody has put something there meanwhile
    errno.ELOOP: (StoreAccessError, 409),
    errno.ENAMETOOLONG: (StoreAccessError, 414),
    errno.EINVAL: (StoreAccessError, 400),
    errno.EILSEQ: (StoreAccessError, 400),
}

_NOT_THERE = {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL}
"""To a reader these say that nothing is stored under that path."""


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Raise an OSError of the block as the error of the contract."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


@contextmanager
def reading(path: str) -> Iterator[None]:
    """As writing, for a block that changes nothing."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise NoSuchFilesytemObjectError(path) from error
        raise store_error(error, path) from error


def store_error(error: OSError, path: str) -> StoreAccessError:
    """The error of the contract for `error`, named by store path."""
    if isinstance(error, FileNotFoundError) and _names_work(error):
        return TransientStoreError(f"{path}: the folder {NAME} was removed meanwhile")
    kind, status = _MEANINGS.get(error.errno, (StoreAccessError, None))
    return kind(f"{path}: {error.strerror or error}", status)


def _names_work(error: OSError) -> bool:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    return any(NAME in Path(os.fsdecode(name)).parts for name in names)
