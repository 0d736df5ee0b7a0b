"""What a try of an upload leaves to the next one, as the text that Upload keeps."""

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class UploadToken:
    """The fields of a subclass, each of which JSON knows."""

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """None if `text` is none that `text()` gave."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None

    def text(self) -> str:
        """What Upload.begun is told."""
        return json.dumps(asdict(self))
