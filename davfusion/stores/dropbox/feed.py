"""What others change in a Dropbox: a request that is answered when there is something."""

from collections.abc import Callable
from typing import Any, Final

from dropbox import files
from dropbox.exceptions import ApiError, BadInputError

from davfusion.stores.dropbox.client import Connection
from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.dropbox.listing import metadata_of
from davfusion.stores.dropbox.names import Places
from davfusion.stores.store import Metadata

SECONDS: Final = 120
"""That one request waits; Dropbox adds up to 90 so that not all ask at once."""


class DropboxFeed:
    """The changes below one folder; `position` is a cursor of list_folder."""

    def __init__(
        self,
        connection: Connection,
        places: Places,
        position: str | None,
        sleep: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self._places = places
        self._sleep = sleep
        self._backoff = 0.0
        self.position = position or ""

    def wait(self) -> bool:
        """As the contract says: one request."""
        if not self.position:
            return True
        self._sleep(self._backoff)
        with dropbox_errors("changes of Dropbox"):
            try:
                client = self._connection.client
                answer = client.files_list_folder_longpoll(self.position, SECONDS)
            except (ApiError, BadInputError) as error:
                if not _is_unknown(error):
                    raise
                self.position = ""
                return True
        self._backoff = float(answer.backoff or 0)
        return bool(answer.changes)

    def read(self) -> dict[str, Metadata | None] | None:
        """As the contract says: one request for each page of changes."""
        with dropbox_errors("changes of Dropbox"):
            try:
                if self.position:
                    return self._read()
            except (ApiError, BadInputError) as error:
                if not _is_unknown(error):
                    raise
            self._begin()
            return None

    def _begin(self) -> None:
        latest = self._connection.client.files_list_folder_get_latest_cursor
        self.position = latest(self._places.root, recursive=True).cursor

    def _read(self) -> dict[str, Metadata | None]:
        changes: dict[str, Metadata | None] = {}
        position, has_more = self.position, True
        while has_more:
            page = self._connection.client.files_list_folder_continue(position)
            position, has_more = page.cursor, page.has_more
            for entry in page.entries:
                path = self._places.local(entry)
                if path is not None:
                    changes.pop(path, None)
                    changes[path] = _now(entry)
        self.position = position
        return changes


def _now(entry: Any) -> Metadata | None:
    return None if isinstance(entry, files.DeletedMetadata) else metadata_of(entry)


def _is_unknown(error: ApiError | BadInputError) -> bool:
    """Whether Dropbox goes on from that cursor no more, or it is another account's."""
    return isinstance(error, BadInputError) or "reset" in tags_of(error)
