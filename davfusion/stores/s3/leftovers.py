"""What a crash may have left in the bucket, removed before the share is served."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from davfusion.stores.s3.bucket import Bucket
from davfusion.stores.s3.listing import PROBE
from davfusion.stores.s3.uploads import abort, unfinished
from davfusion.stores.store import StoreAccessError

HOUR: Final = 3600.0
PROBE_AGE: Final = HOUR
"""Seconds; a probe lives for one request, and another server's must not be removed under it."""
UPLOAD_AGE: Final = 7 * 24 * HOUR
"""Seconds; a listing does not say which tool began an upload, and none that lives takes a week.

The same as AWS recommends for the lifecycle rule AbortIncompleteMultipartUpload
(docs.aws.amazon.com/AmazonS3/latest/userguide/mpu-abort-incomplete-mpu-lifecycle-config.html).
"""

_log = logging.getLogger(__name__)


def sweep(bucket: Bucket, prefix: str, now: float) -> None:
    """Delete old probes and abort old unfinished uploads below `prefix`, whoever began them.

    `now` is in UTC seconds. What the service or the credentials do not allow is logged.
    """
    for sweep_kind in (_sweep_probes, _sweep_uploads):
        with _logged(sweep_kind, bucket.address(prefix)):
            sweep_kind(bucket, prefix, now)


def _sweep_probes(bucket: Bucket, prefix: str, now: float) -> None:
    for entry in bucket.entries(prefix + PROBE):
        if entry.size == 0 and entry.modified < now - PROBE_AGE:
            bucket.delete(entry.key)


def _sweep_uploads(bucket: Bucket, prefix: str, now: float) -> None:
    for key, upload_id, begun in unfinished(bucket, prefix):
        if begun < now - UPLOAD_AGE:
            abort(bucket, key, upload_id)


@contextmanager
def _logged(sweep_kind: Callable[..., None], address: str) -> Iterator[None]:
    try:
        yield
    except StoreAccessError as error:
        kind = "probes" if sweep_kind is _sweep_probes else "uploads"
        _log.warning("unfinished %s below %s stay behind: %s", kind, address, error)
