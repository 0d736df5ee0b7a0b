"""Azure's blobs by adlfs."""

import re
import time
from typing import Final

from fsspec.asyn import sync

from davfusion.stores.errors import TransientStoreError
from davfusion.stores.fsspec.backend import StreamingBackend

_REFUSED: Final = re.compile(r"[\x00-\x1f\\]|\?versionid=| $")
"""adlfs drops tabs and line breaks, as in URLs, cuts off versions, and lists no folder "a "."""

_POLL_SECONDS: Final = 0.2


class AzureBackend(StreamingBackend):
    """An object store, where adlfs takes some names for those of others."""

    @classmethod
    def why_refused(cls, name: str) -> str | None:
        if _REFUSED.search(name):
            return "with a control character, \\ or ?versionid= in it, or a space at its end"
        return None

    def copy(self, src: str, dst: str) -> None:
        """As Backend.copy; adlfs returns as soon as the service has begun.

        Source: Copy Blob in Microsoft's REST reference, x-ms-copy-status.
        """
        super().copy(src, dst)
        while (status := sync(self.filesystem.loop, self._copy_status, dst)) == "pending":
            time.sleep(_POLL_SECONDS)
        if status != "success":
            raise TransientStoreError(f"the copy of {src} ended as {status}")

    async def _copy_status(self, path: str) -> str:
        container, blob, _ = self.filesystem.split_path(path)
        async with self.filesystem.service_client.get_blob_client(container, blob) as client:
            return str((await client.get_blob_properties()).copy.status)
