"""What a store with a change feed tells of the changes of other programs."""

from collections.abc import Mapping
from typing import Protocol

from davfusion.stores.store import Metadata


class Feed(Protocol):
    """What other programs change, told by the service; used by one thread."""

    @property
    def position(self) -> str:
        """What was read last; a later feed, also one of another process, goes on from there."""

    def wait(self) -> bool:
        """Whether there is something to read; asks the service, which answers when there is.

        It may take minutes. Raises errors of the Store contract, after which it can be called
        again, as can read().
        """

    def read(self) -> Mapping[str, Metadata | None] | None:
        """What is at the paths that have changed since `position`, None for nothing.

        In any spelling of the path. None for all: anything may have changed. Our own changes are
        among them. Below a directory that is gone nothing is named.
        """
