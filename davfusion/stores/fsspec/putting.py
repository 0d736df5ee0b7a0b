"""Changes where a put replaces a file at once, and nothing can be renamed: object stores."""

from collections.abc import Iterable
from tempfile import NamedTemporaryFile

from davfusion.stores import paths
from davfusion.stores.errors import AlreadyExistsError
from davfusion.stores.fsspec.backend import Backend
from davfusion.stores.fsspec.errors import from_source
from davfusion.stores.fsspec.gathering import gathered
from davfusion.stores.fsspec.removal import Removal
from davfusion.stores.fsspec.share import KEEP, FsspecShare, require_version, require_whole
from davfusion.stores.source import exactly
from davfusion.stores.store import InterruptEvent, Metadata, SourceStream, seekable
from davfusion.stores.streams import size_of


class Putting:
    """Writes are put: by a temporary file of this machine, if they cannot be streamed."""

    def __init__(self, share: FsspecShare) -> None:
        self._share = share
        self._removal = Removal(share)

    def write(
        self,
        source: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None,
        if_etag: str | None,
        modified: float | None,
    ) -> Metadata:
        """As store_fileobject of the contract; two stats and the put; streamed, three."""
        if seekable(source) is None:
            with self._share.lent(path) as backend:
                if backend.streams:
                    return self._stream(backend, source, path, interrupt_event, if_etag)
        with (
            gathered(source, interrupt_event) as (file, _, size),
            self._share.lent(path) as backend,
        ):
            require_version(self._share.stat_or_none(backend, path), path, if_etag)
            if backend.keeps_folders:
                self._make_directory(backend, paths.parent(path))
            backend.put(file, self._share.at(path), modified)
            stored = self._share.stat(backend, path)
        require_whole(stored, path, size)
        return stored

    def _stream(
        self,
        backend: Backend,
        source: SourceStream,
        path: str,
        interrupt_event: InterruptEvent | None,
        if_etag: str | None,
    ) -> Metadata:
        def require() -> None:
            require_version(self._share.stat_or_none(backend, path), path, if_etag)

        size = 0
        require()
        with backend.replaced(self._share.at(path)) as file:
            for block in from_source(exactly(source, size_of(source), interrupt_event)):
                size += file.write(block)
            require()
        stored = self._share.stat(backend, path)
        require_whole(stored, path, size)
        return stored

    def create_directory(self, directory: str) -> None:
        """As the contract says."""
        with self._share.lent(directory) as backend:
            if self._share.stat_or_none(backend, directory) is not None:
                raise AlreadyExistsError(f"{directory} exists")
            self._make_directory(backend, directory)

    def copy(self, src: str, dst: str) -> None:
        """Copy a file over nothing or another file."""
        with self._share.lent(src) as backend:
            if backend.keeps_folders:
                self._make_directory(backend, paths.parent(dst))
            backend.copy(self._share.at(src), self._share.at(dst))

    def delete_many(self, files: Iterable[str]) -> None:
        """As the contract says; a call for each file, and a few for each folder."""
        files = list(files)
        with self._share.lent(paths.ROOT) as backend:
            parents = set() if backend.keeps_folders else {paths.parent(path) for path in files}
            shown = [each for each in parents if self._share.stat_or_none(backend, each)]
            remove = self._delete_file if backend.keeps_folders else self._removal.file
        try:
            self._removal.each(remove, files)
        finally:
            with self._share.lent(paths.ROOT) as backend:
                for directory in shown:
                    self._keep(backend, directory)

    def _delete_file(self, path: str) -> None:
        self.delete(path, is_dir=False)

    def delete(self, path: str, is_dir: bool) -> None:
        """As the contract says; what held it stays, at the cost of a listing."""
        with self._share.lent(path) as backend:
            found = self._share.stat_or_none(backend, path)
        if found is None or found["is_dir"] != is_dir:
            return
        if is_dir:
            self._removal.tree(path)
        else:
            self._removal.file(path)
        with self._share.lent(path) as backend:
            self._keep(backend, paths.parent(path))

    def _make_directory(self, backend: Backend, directory: str) -> None:
        if backend.keeps_folders:
            for folder in [*reversed(list(paths.ancestors(directory))), directory]:
                if folder != paths.ROOT and self._share.stat_or_none(backend, folder) is None:
                    backend.make_directory(self._share.at(folder))
        else:
            self._mark(backend, directory)

    def _keep(self, backend: Backend, directory: str) -> None:
        """Mark a directory that nothing else shows any more; the root needs no mark."""
        if directory == paths.ROOT or backend.keeps_folders:
            return
        if self._share.stat_or_none(backend, directory) is None:
            self._mark(backend, directory)

    def _mark(self, backend: Backend, directory: str) -> None:
        with NamedTemporaryFile() as empty:
            backend.put(empty.name, self._share.at(paths.join(directory, KEEP)), None)
