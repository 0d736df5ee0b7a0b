"""What Dropbox's own errors mean to a caller: the one place where the SDK's exceptions end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import requests
from dropbox.exceptions import (
    ApiError,
    AuthError,
    BadInputError,
    HttpError,
    InternalServerError,
    PathRootError,
    RateLimitError,
)
from stone.backends.python_rsrc.stone_validators import ValidationError
from urllib3.exceptions import HTTPError

from davfusion.stores.errors import UnreachableError
from davfusion.stores.store import (
    AlreadyExistsError,
    ConflictError,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
)

LOGIN: Final = "run `davfusion login dropbox`"

_TRANSIENT: Final = frozenset(
    {"too_many_write_operations", "too_many_requests", "internal_error", "operation_suppressed"}
    | {"content_hash_mismatch", "reset", "incorrect_offset"}
    | {"lookup_failed", "closed", "not_closed", "concurrent_session_missing_data"}
)
"""Those of an upload session too: the next try begins another one."""
_FULL: Final = frozenset({"insufficient_space", "insufficient_quota"})
_TOO_LARGE: Final = frozenset({"payload_too_large", "too_large"})
_MISSING: Final = frozenset({"not_found", "not_file", "not_folder", "malformed_path"})
_DENIED: Final = frozenset(
    {"no_write_permission", "team_folder", "access_restricted", "restricted_content", "locked"}
    | {
        "email_not_verified",
        "unsupported_file",
        "cant_copy_shared_folder",
        "cant_nest_shared_folder",
    }
    | {"cant_move_folder_into_itself", "duplicated_or_nested_paths", "cant_move_shared_folder"}
    | {"disallowed_name"}
)


def tags(error: object) -> tuple[str, ...]:
    """The tags of an error union, from the outside in: ("path", "conflict", "file")."""
    found: list[str] = []
    while error is not None:
        tag = getattr(error, "_tag", None)
        if tag is not None:
            found.append(tag)
        error = getattr(error, "_value", None) if tag else getattr(error, "reason", None)
    return tuple(found)


def tags_of(error: BaseException | None) -> tuple[str, ...]:
    """The tags of what the SDK raised; none for anything else than an answer of the API."""
    return tags(error.error) if isinstance(error, ApiError) else ()


@contextmanager
def dropbox_errors(what: str) -> Iterator[None]:
    """Raise what goes wrong inside as an error of the Store contract; `what` names the object."""
    try:
        yield
    except ApiError as error:
        raise error_for(tags(error.error), what) from error
    except HttpError as error:
        raise _http_error(error, what) from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise UnreachableError(f"{what}: {_short(error)}") from error
    except (requests.RequestException, HTTPError) as error:
        raise TransientStoreError(f"{what}: {_short(error)}") from error
    except ValidationError as error:  # an answer of a kind that the SDK does not know
        raise StoreAccessError(f"{what}: {error}", 502) from error
    except (AssertionError, KeyError, ValueError) as error:  # what the SDK makes of other answers
        raise TransientStoreError(f"{what}: no answer of Dropbox's: {error!r}") from error


def error_for(found: Sequence[str], what: str) -> StoreAccessError:
    """The error for the tags of an answer; `what` names the object, never a secret."""
    text = f"{what}: Dropbox answered {'/'.join(found)}"
    present = frozenset(found)
    if present & _TRANSIENT:
        return TransientStoreError(text)
    if present & _TOO_LARGE:
        return StoreSpaceLimitError(text, 413)
    kind = _permanent(present)
    return StoreAccessError(text, 502) if kind is None else kind(text)


def _permanent(present: frozenset[str]) -> type[StoreAccessError] | None:
    if "conflict" in present:
        return AlreadyExistsError if "folder" in present else ConflictError
    kinds = (
        (_FULL, StoreSpaceLimitError),
        (_DENIED, StoreAutorizationError),
        (_MISSING, NoSuchFilesytemObjectError),
    )
    return next((kind for tags_of_it, kind in kinds if present & tags_of_it), None)


def _http_error(error: HttpError, what: str) -> StoreAccessError:
    if isinstance(error, RateLimitError):
        seconds = None if error.backoff is None else float(error.backoff)
        return TransientStoreError(f"{what}: Dropbox asks for a pause", 503, seconds)
    if isinstance(error, AuthError):
        return StoreAutorizationError(f"{what}: {_auth_text(error)}")
    if isinstance(error, InternalServerError):
        return TransientStoreError(f"{what}: Dropbox answered {error.status_code}")
    if isinstance(error, BadInputError):
        return _bad_input(error, what)
    kind = StoreAutorizationError if isinstance(error, PathRootError) else StoreAccessError
    return kind(f"{what}: Dropbox answered {error.status_code}")


def _bad_input(error: BadInputError, what: str) -> StoreAccessError:
    text = " ".join(str(error.message).split())
    if "access token" in text or "invalid_client" in text:
        return StoreAutorizationError(f"{what}: Dropbox does not know this login; {LOGIN}")
    return StoreAccessError(f"{what}: Dropbox answered 400: {text}", 400)


def _auth_text(error: AuthError) -> str:
    found = tags(error.error)
    if "missing_scope" in found:
        scope: Any = error.error.get_missing_scope().required_scope
        return f"the app has no permission {scope}: tick it in the app console, then {LOGIN} again"
    return f"Dropbox refuses this login ({'/'.join(found) or 401}); {LOGIN}"


def _short(error: BaseException) -> str:
    """Without the address, in which a query may hold a secret."""
    return type(error).__name__
