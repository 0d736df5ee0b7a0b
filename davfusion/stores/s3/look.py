"""What is stored under a path, in the fewest requests."""

from dataclasses import dataclass

from davfusion.stores import paths
from davfusion.stores.s3.bucket import Bucket, Head
from davfusion.stores.s3.listing import FOLDER_SUFFIX, Keys
from davfusion.stores.store import NoSuchFilesytemObjectError


@dataclass(frozen=True)
class Found:
    """What two requests say of a path."""

    head: Head | None
    is_folder: bool


def look(bucket: Bucket, keys: Keys, *looked_for: str) -> list[Found]:
    """A HEAD and a LIST for each path, all at once."""
    submit = bucket.connection.pool.submit
    asked = [
        (submit(bucket.head, keys.file(path)), submit(bucket.shows, keys.folder(path)))
        for path in looked_for
    ]
    return [Found(head.result(), shows.result()) for head, shows in asked]


def require_folder_suffix(bucket: Bucket, keys: Keys, path: str) -> None:
    """Raise NoSuchFilesytemObjectError unless `name_$folder$` shows a directory.

    For a path below which nothing is; a HEAD, and another if that marker is there.
    """
    if path == paths.ROOT:
        return
    key = keys.file(path)
    if bucket.head(key + FOLDER_SUFFIX) is None or bucket.head(key) is not None:
        raise NoSuchFilesytemObjectError(bucket.address(key))
