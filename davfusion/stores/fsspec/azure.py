"""Azure's blobs by adlfs."""

import re
from typing import Final

from davfusion.stores.fsspec.backend import Backend

_REFUSED: Final = re.compile(r"[\x00-\x1f\\]|\?versionid=| $")
"""adlfs drops tabs and line breaks, as in URLs, cuts off versions, and lists no folder "a "."""


class AzureBackend(Backend):
    """An object store, where adlfs takes some names for those of others."""

    @classmethod
    def why_refused(cls, name: str) -> str | None:
        if _REFUSED.search(name):
            return "with a control character, \\ or ?versionid= in it, or a space at its end"
        return None
