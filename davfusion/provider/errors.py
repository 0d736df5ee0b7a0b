"""Errors on their way to the client: from the Store's to HTTP statuses."""

from collections.abc import Iterator
from contextlib import contextmanager

from wsgidav.dav_error import DAVError

from davfusion.stores.errors import (
    InterruptedException,
    InvalidPathValueError,
    StoreAccessError,
    TransientStoreError,
)

RETRY_SECONDS = 5
"""What a client is asked to wait when the service names no time of its own."""


class ConditionError(DAVError):  # type: ignore[misc]
    """An error whose cause is a precondition code of RFC 4918 section 16, with its hrefs."""

    def __init__(self, status: int, code: str, hrefs: tuple[str, ...] = ()) -> None:
        super().__init__(status, code)
        self.code = code
        self.hrefs = hrefs


def dav_error(error: StoreAccessError) -> DAVError:
    """The answer to a client for a store's error."""
    status = error.status if 400 <= error.status < 600 else 500
    if not isinstance(error, TransientStoreError):
        return DAVError(status, str(error))
    seconds = error.retry_after or RETRY_SECONDS
    return DAVError(503, str(error), add_headers=[("Retry-After", str(max(1, round(seconds))))])


@contextmanager
def translated() -> Iterator[None]:
    """Store errors that leave the block become DAVErrors."""
    try:
        yield
    except StoreAccessError as error:
        raise dav_error(error) from error
    except InvalidPathValueError as error:
        raise DAVError(400, str(error)) from error
    except InterruptedException as error:
        raise DAVError(503, "The server is shutting down.") from error
