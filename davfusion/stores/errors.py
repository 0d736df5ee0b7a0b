"""The errors a Store raises; an SDK's own exceptions never leave the module that imports the SDK.

`status` is the HTTP status that describes the error to a client. Every error can be pickled, so
it can cross a process border.
"""

from collections.abc import Mapping
from typing import Any


class StoreAccessError(Exception):
    """A call to a store failed; the subclasses say how."""

    default_status = 500

    def __init__(self, msg: str = "", status: int | None = None) -> None:
        super().__init__(msg)
        self.status = self.default_status if status is None else status

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self), self.status), self.__dict__)


class NoSuchFilesytemObjectError(StoreAccessError):
    """Nothing is stored under that path."""

    default_status = 404


class AlreadyExistsError(StoreAccessError):
    """Something is stored under that path already."""

    default_status = 405


class StoreAutorizationError(StoreAccessError):
    """The service refuses these credentials, or refuses them this operation."""

    default_status = 403


class StoreSpaceLimitError(StoreAccessError):
    """The quota is used up, or the file is larger than the service takes (status 413)."""

    default_status = 507


class ConflictError(StoreAccessError):
    """The stored version is not the one that the caller's condition names."""

    default_status = 412


class TransientStoreError(StoreAccessError):
    """The same call may succeed later; `retry_after` is the service's own wish in seconds."""

    default_status = 503

    def __init__(
        self, msg: str = "", status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(msg, status)
        self.retry_after = retry_after


class UnreachableError(TransientStoreError):
    """The service has not answered at all; whether it has done what was asked is not known."""


class StoreAwayError(UnreachableError):
    """The service did not answer a moment ago, so nothing was asked of it."""


class PartialFailureError(StoreAccessError):
    """An operation on many paths went on past failures; `failures` says which paths and why."""

    default_status = 207

    def __init__(
        self,
        msg: str = "",
        status: int | None = None,
        failures: Mapping[str, StoreAccessError] | None = None,
    ) -> None:
        super().__init__(msg, status)
        self.failures = dict(failures or {})

    @property
    def passing(self) -> TransientStoreError | None:
        """One of the failures that may pass; None: trying again does not help."""
        found = (each for each in self.failures.values() if isinstance(each, TransientStoreError))
        return next(found, None)


class DateParseError(Exception):
    """A service sent a date that cannot be read."""


class InterruptedException(Exception):
    """The caller's interrupt_event was set; nothing has been stored."""


class InvalidPathValueError(ValueError):
    """Not a path of the contract, see paths.check_path."""
