"""Writing one file in one request, read while it is sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from davfusion.stores.dropbox.commits import Commits, LateTurn
from davfusion.stores.dropbox.content import BLOCK, source_hash, verified
from davfusion.stores.dropbox.errors import dropbox_errors
from davfusion.stores.dropbox.session import Session, Token, ranges
from davfusion.stores.dropbox.streaming import Streamed
from davfusion.stores.source import Slice, Source
from davfusion.stores.store import TransientStoreError, Upload
from davfusion.stores.streams import counted

IN_PARTS: Final = "in parts"
"""The token of an upload that has no session yet, but is to have one."""


class Whole:
    """One try; if it breaks off after `part_size` bytes, `upload` has a token for a Session.

    So it does if the process ends: the token is given before. Dropbox's content_hash is sent
    before the content, which is read twice.
    """

    def __init__(
        self, commits: Commits, source: Source, commit: Any, upload: Upload, part_size: int
    ) -> None:
        self._commits = commits
        self._source = source
        self._commit = commit
        self._upload = upload
        self._part_size = part_size
        self._noted = 0

    def write(self) -> Any:
        """Store all and return the metadata of the file."""
        digest = source_hash(self._source)
        self._upload.confirm()
        self._source.require_uninterrupted()
        is_large = self._source.size >= self._part_size
        with counted(self._upload) as sent:
            return self._large(digest, sent) if is_large else self._small(digest, sent)

    def _small(self, digest: str, sent: Callable[[int], None]) -> Any:
        """One request where nobody else writes; else two, of which many share the second."""
        with self._commits.turn_if_free() as is_free:
            if is_free:
                return self._in_one(digest, self._body(sent))
        return self._in_two(digest, sent)

    def _large(self, digest: str, sent: Callable[[int], None]) -> Any:
        """One request, that has the turn from its last piece on; two where many others do so."""
        with self._commits.late_turn() as turn:
            if turn is not None:
                return self._in_one(digest, self._body(sent, turn))
        return self._in_two(digest, sent)

    def _in_one(self, digest: str, body: Streamed) -> Any:
        commit = self._commit
        with self._in_parts_after_a_break(body):
            stored = self._commits.client.files_upload(
                body,
                commit.path,
                mode=commit.mode,
                client_modified=commit.client_modified,
                strict_conflict=True,
                content_hash=digest,
            )
            return verified(stored, digest)

    def _in_two(self, digest: str, sent: Callable[[int], None]) -> Any:
        body = self._body(sent)
        with self._in_parts_after_a_break(body):
            start = self._commits.client.files_upload_session_start
            begun = start(body, close=True, content_hash=digest)
        size, part_size = self._source.size, self._part_size
        parts = [number for number, _, _ in ranges(size, part_size)]
        token = Token(begun.session_id, size, part_size, parts)
        if size >= part_size:
            self._upload.begun(token.text())
        session = Session(self._commits, self._source, self._commit, self._upload)
        return session.finish(token, digest)

    def _body(self, sent: Callable[[int], None], turn: LateTurn | None = None) -> Streamed:
        return Streamed(self._source.size, partial(self._pieces, sent, turn))

    def _pieces(self, sent: Callable[[int], None], turn: LateTurn | None) -> Iterator[bytes]:
        """All from the beginning, for each time that the SDK posts it."""
        if self._noted:
            sent(-self._noted)
        self._noted = position = 0
        if turn is not None:
            turn.give_back()
        for piece in Slice(self._source, 0, self._source.size).blocks():
            position += len(piece)
            if turn is not None and position == self._source.size:
                turn.take()
            yield piece
            self._note(position, sent)

    def _note(self, position: int, sent: Callable[[int], None]) -> None:
        if position - self._noted >= BLOCK or position == self._source.size:
            sent(position - self._noted)
            self._noted = position
        if position >= self._part_size and self._upload.token is None:
            self._upload.begun(IN_PARTS)

    @contextmanager
    def _in_parts_after_a_break(self, body: Streamed) -> Iterator[None]:
        """The token stays unless Dropbox has answered, or nobody will try again."""
        try:
            with self._source.unwrapped(), dropbox_errors(f"dropbox:{self._commit.path}"):
                yield
        except Exception as error:
            is_break = isinstance(error, TransientStoreError) and not body.is_answered
            if not is_break and self._upload.token is not None:
                self._upload.begun(None)
            raise
