"""Writing one file in parts, several at a time, that a later try goes on with."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, Final

from dropbox import files
from dropbox.exceptions import ApiError

from davfusion.stores.dropbox.commits import Commits, FinishError, finish_arg
from davfusion.stores.dropbox.content import block_digests, content_hash, read_all, verified
from davfusion.stores.dropbox.errors import dropbox_errors, tags_of
from davfusion.stores.parallel import run_all
from davfusion.stores.source import Range, Source
from davfusion.stores.store import TransientStoreError, Upload
from davfusion.stores.streams import counted
from davfusion.stores.upload_token import UploadToken

LARGEST: Final = 2**41 - 2**22
"""Bytes of one file; see files/upload_session/append_v2."""
PARTS_AT_ONCE: Final = 4


@dataclass(frozen=True)
class Token(UploadToken):
    """An upload session, and the parts of it that Dropbox has."""

    session_id: str
    size: int
    part_size: int
    sent: list[int] = field(default_factory=list)


class Session:
    """One try of an upload in parts; `upload` carries the token from try to try."""

    def __init__(self, commits: Commits, source: Source, commit: Any, upload: Upload) -> None:
        self._commits = commits
        self._client = commits.client
        self._source = source
        self._commit = commit
        self._upload = upload
        self._digests: dict[int, bytes] = {}
        self._noting = threading.Lock()

    def write(self, part_size: int) -> Any:
        """Store all in parts of `part_size`, a multiple of BLOCK; the metadata of the file."""
        with counted(self._upload) as sent, self._kept_for_another_try():
            token = self._earlier() or self._begin(part_size)
            send = partial(self._send, token, sent)
            parts = self._source.parts(ranges(self._source.size, token.part_size))
            others = takewhile(lambda part: not self._is_last(part), parts)
            with closing(run_all(send, others, PARTS_AT_ONCE)) as finished:
                for _, future in finished:
                    future.result()
            *_, last = ranges(self._source.size, token.part_size)
            send(last)
            self._upload.confirm()
            self._source.require_uninterrupted()
            digest = content_hash(b"".join(self._digests[n] for n in sorted(self._digests)))
            return self._finish(token, digest)

    def finish(self, token: Token, digest: str) -> Any:
        """Make the file of a session that has all; a later try can do so by `token`."""
        with self._kept_for_another_try():
            return self._finish(token, digest)

    def _is_last(self, part: Range) -> bool:
        _, start, length = part
        return start + length == self._source.size

    def _earlier(self) -> Token | None:
        token = Token.parse(self._upload.token)
        if token is None or token.size != self._source.size:
            return None
        return token

    def _begin(self, part_size: int) -> Token:
        kind = files.UploadSessionType.concurrent
        begun = self._client.files_upload_session_start(b"", session_type=kind)
        token = Token(begun.session_id, self._source.size, part_size)
        self._upload.begun(token.text())
        return token

    def _send(self, token: Token, sent: Callable[[int], None], part: Range) -> None:
        """Noted at once, so that no part goes twice because another one failed meanwhile."""
        digests = self._source.send(self._sender(token), part)
        with self._noting:
            self._note(token, part, digests, sent)

    def _sender(self, token: Token) -> Callable[[Range], bytes]:
        """Sends a part unless Dropbox has it, and gives the digests of its blocks."""

        def send(part: Range) -> bytes:
            number, start, length = part
            data = read_all(self._source, start, length)
            digests = block_digests(data)
            if number not in token.sent:
                with dropbox_errors(f"dropbox:{self._commit.path}"):
                    self._append(token, part, data, content_hash(digests))
            return digests

        return send

    def _append(self, token: Token, part: Range, data: bytes, digest: str) -> None:
        _, start, _ = part
        is_last = self._is_last(part)
        cursor = files.UploadSessionCursor(token.session_id, start)
        try:
            self._client.files_upload_session_append_v2(data, cursor, is_last, content_hash=digest)
        except ApiError as error:
            if is_last and tags_of(error) == ("closed",):
                return  # by a try whose answer was lost
            if tags_of(error) == ("not_found",):
                raise _LostError(f"dropbox:{self._commit.path}: the upload has expired") from error
            raise

    def _note(self, token: Token, part: Range, digests: bytes, sent: Callable[[int], None]) -> None:
        number, _, length = part
        self._digests[number] = digests
        sent(length)
        if number not in token.sent:
            token.sent.append(number)
            self._upload.begun(token.text())

    def _finish(self, token: Token, digest: str) -> Any:
        try:
            arg = finish_arg(token.session_id, self._source.size, self._commit)
            stored = self._commits.finish(arg)
        except FinishError as refused:
            if not refused.is_lost:
                raise refused.error from refused
            stored = self._stored_before(digest)
        return verified(stored, digest)

    def _stored_before(self, digest: str) -> Any:
        """The file, if the request that made it was one whose answer was lost."""
        remote = self._commit.path
        lost = _LostError(f"dropbox:{remote}: the upload has expired")
        try:
            stored = self._client.files_get_metadata(remote)
        except ApiError as error:
            raise lost from error
        if getattr(stored, "content_hash", None) != digest:
            raise lost
        return stored

    @contextmanager
    def _kept_for_another_try(self) -> Iterator[None]:
        """The session stays after what may pass, and is forgotten after any other error."""
        try:
            with dropbox_errors(f"dropbox:{self._commit.path}"):
                yield
        except Exception as error:
            if not isinstance(error, TransientStoreError) or isinstance(error, _LostError):
                self._upload.begun(None)
            raise


class _LostError(TransientStoreError):
    """Dropbox does not know the session any more."""


def ranges(size: int, step: int) -> Iterator[Range]:
    """The parts of `size` bytes or the most that Dropbox takes, numbered from 0."""
    size = min(size, LARGEST)
    for number, start in enumerate(range(0, size, step)):
        yield number, start, min(step, size - start)
