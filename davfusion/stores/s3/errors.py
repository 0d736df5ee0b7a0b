"""What S3's own errors mean to a caller: the one place where botocore's exceptions end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSOError,
)
from urllib3.exceptions import HTTPError

from davfusion.stores.errors import UnreachableError
from davfusion.stores.store import (
    ConflictError,
    NoSuchFilesytemObjectError,
    StoreAccessError,
    StoreAutorizationError,
    StoreSpaceLimitError,
    TransientStoreError,
)

MISSING: Final = frozenset({"NoSuchKey", "NotFound", "404", "NoSuchVersion"})
NO_BUCKET: Final = "NoSuchBucket"
NO_UPLOAD: Final = "NoSuchUpload"
CONFLICT: Final = "ConditionalRequestConflict"
STALE: Final = frozenset({"PreconditionFailed", "412"})
UNSUPPORTED: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
DENIED: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
    | {
        "AllAccessDisabled",
        "AccountProblem",
        "RequestTimeTooSkewed",
        "AuthorizationHeaderMalformed",
    }
)
FULL: Final = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
)
TRANSIENT: Final = frozenset(
    {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"}
    | {"ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "BadDigest"}
    | {"OperationAborted", CONFLICT, NO_UPLOAD}
)
"""Answered also with 400, 404 and 409, so the status alone does not tell them."""
TRANSIENT_STATUS: Final = frozenset({429, 500, 502, 503, 504})

_NO_ANSWER: Final = (ConnectionError, ConnectionClosedError, ReadTimeoutError)
_BROKEN_OFF: Final = (HTTPClientError, HTTPError, IncompleteReadError, ResponseStreamingError)
_NO_CREDENTIALS: Final = (
    *(NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, SSOError),
)


def code_of(error: ClientError) -> str:
    """The S3 error code; the status as text where an answer to HEAD has no body to hold one."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, 500 where an error came inside a 200."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500))
    return 500 if status < 400 else status


def is_missing(error: ClientError) -> bool:
    """Whether the key is not there (rather than its bucket)."""
    return code_of(error) in MISSING or (
        status_of(error) == 404 and code_of(error) not in TRANSIENT | {NO_BUCKET}
    )


def is_no_upload(error: ClientError) -> bool:
    """Whether the multipart upload is not there: completed, aborted or never begun."""
    return code_of(error) == NO_UPLOAD or is_missing(error)


def is_stale(error: ClientError) -> bool:
    """Whether a condition of the request did not hold."""
    return code_of(error) in STALE or status_of(error) == 412


def is_unsupported(error: ClientError) -> bool:
    """Whether this server does not offer the operation at all."""
    return code_of(error) in UNSUPPORTED or status_of(error) in (405, 501)


def is_transient(error: ClientError) -> bool:
    """Whether the same request may succeed later."""
    return code_of(error) in TRANSIENT or (
        status_of(error) in TRANSIENT_STATUS and code_of(error) not in FULL
    )


@contextmanager
def s3_errors(what: str) -> Iterator[None]:
    """Raise what goes wrong inside as an error of the Store contract; `what` names the object."""
    try:
        yield
    except ClientError as error:
        raise store_error(error, what) from error
    except _NO_CREDENTIALS as error:
        raise StoreAutorizationError(f"{what}: {error}") from error
    except _NO_ANSWER as error:
        raise UnreachableError(f"{what}: {error}") from error
    except _BROKEN_OFF as error:
        raise TransientStoreError(f"{what}: {error}") from error
    except ParamValidationError as error:
        raise StoreAccessError(f"{what}: {' '.join(str(error).split())}", 400) from error
    except BotoCoreError as error:
        raise StoreAccessError(f"{what}: {error}") from error


def store_error(error: ClientError, what: str) -> StoreAccessError:
    """The error of the Store contract for an S3 error answer."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return error_for(code_of(error), status_of(error), what, headers)


def error_for(
    code: str, status: int, what: str, headers: Mapping[str, Any] | None = None
) -> StoreAccessError:
    """The error for an S3 code and status; `what` names the object, never a secret."""
    text = f"{what}: S3 answered {code or status}"
    if code == NO_BUCKET:
        # Not 404: a client that keeps a copy in step would delete all of it.
        return StoreAccessError(f"{text}: there is no such bucket", 502)
    if code in TRANSIENT or (status in TRANSIENT_STATUS and code not in FULL):
        return TransientStoreError(text, 503, _seconds((headers or {}).get("retry-after")))
    if code == "EntityTooLarge":
        return StoreSpaceLimitError(text, 413)
    kind = _permanent(code, status)
    return StoreAccessError(text, status) if kind is None else kind(text)


def _permanent(code: str, status: int) -> type[StoreAccessError] | None:
    if code in FULL or status == 507:
        return StoreSpaceLimitError
    if code in DENIED or status in (401, 403):
        return StoreAutorizationError
    if code in MISSING or status == 404:
        return NoSuchFilesytemObjectError
    return ConflictError if code in STALE or status == 412 else None


def _seconds(retry_after: object) -> float | None:
    """Retry-After in seconds; S3 sends no dates there (RFC 9110 10.2.3 allows them)."""
    text = str(retry_after)
    return float(text) if text.isdigit() else None
