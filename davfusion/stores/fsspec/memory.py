"""fsspec's memory: one for all of a process, without thread safety or times."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from davfusion.stores.fsspec.backend import Backend, Info
from davfusion.stores.store import Features


class MemoryBackend(Backend):
    """Files that are put whole; folders are there by themselves."""

    features: ClassVar[Features] = Features(
        server_side_copy=True,
        atomic_replace=True,
        ranged_read=True,
        one_process=True,
        modified_times=True,
    )
    keeps_folders: ClassVar[bool] = True
    serialized = threading.RLock()

    def put(self, local_file: str, path: str, modified: float | None) -> None:
        self.filesystem.pipe_file(path, Path(local_file).read_bytes())
        if modified is not None:
            self.set_modified(path, modified)

    def set_modified(self, path: str, when: float) -> None:
        self.filesystem.store[path].modified = datetime.fromtimestamp(when, UTC)

    def copy(self, src: str, dst: str) -> None:
        self.filesystem.cp_file(src, dst)
        self.filesystem.store[dst].modified = self.filesystem.store[src].modified

    def remove_directory(self, path: str) -> None:
        self.filesystem.rmdir(path)

    def _modified(self, info: Info) -> float:
        file = self.filesystem.store.get(info["name"])
        return 0.0 if file is None else float(file.modified.timestamp())

    def _version(self, info: Info) -> str:
        return f"{self.filesystem.store[info['name']].created.timestamp():.6f}"
