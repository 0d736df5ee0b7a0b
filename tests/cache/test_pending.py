"""What becomes of a row: what the store may have at a path is never forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from davfusion.cache.pending import (
    ABSENT,
    DIRECTORY,
    EITHER,
    FILE,
    NOTHING,
    Held,
    Row,
    occupied,
    vacated,
)

kinds = st.sampled_from([NOTHING, FILE, DIRECTORY])
steps = st.lists(st.sampled_from(["put", "mkcol", "delete", "begin", "sent"]), max_size=8)


class Path:
    """One path as its rows go on, and what the store may have there by then."""

    def __init__(self, stored: str) -> None:
        self.held = Held(stored, "v0" if stored == FILE else None)
        self.may_hold = {stored}
        self.versions = {"v0"} if stored == FILE else set()
        self.row: Row | None = None
        self.seen = stored
        self.count = 0

    def put(self) -> None:
        if self.seen != DIRECTORY:
            self.count += 1
            self.place(Row("/a", FILE, etag=f"c{self.count}"))

    def mkcol(self) -> None:
        if self.seen == NOTHING:
            self.place(Row("/a", DIRECTORY))

    def place(self, new: Row) -> None:
        self.row, self.seen = occupied(self.row, self.visible, new), new.kind

    def delete(self) -> None:
        if self.seen != NOTHING:
            self.row, self.seen = vacated(self.row, self.visible, "/a"), NOTHING

    @property
    def visible(self) -> Held:
        """As Overlay.held gives it."""
        hidden = self.row is not None and self.row.hides_below
        return Held(NOTHING) if hidden else self.held

    def begin(self) -> None:
        """A try whose end nobody knows."""
        row = self.row
        if row is None:
            return
        sent = f"{row.sent} {row.etag}".strip() if row.kind == FILE else row.sent
        self.row = row._replace(begun=1.0, sent=sent)
        if row.kind == FILE and row.clears == NOTHING:
            self.versions.add(str(row.etag))
        self.may_hold |= {NOTHING} if row.clears else set()
        self.may_hold |= {row.kind} if row.kind != ABSENT else {NOTHING}

    def sent(self) -> None:
        """A try that ended well."""
        if self.row is not None:
            kind, etag = self.row.kind, self.row.etag
            self.held = Held(NOTHING if kind == ABSENT else kind, etag, etag)
            self.may_hold = {self.held.kind}
            self.versions = {str(etag)} if kind == FILE else set()
            self.row = None


def after(stored: str, made: list[str]) -> Path:
    path = Path(stored)
    for step in made:
        getattr(path, step)()
    return path


@given(kinds, steps)
def test_what_the_store_may_hold_is_removed_or_replaced(stored: str, made: list[str]) -> None:
    path = after(stored, made)
    if path.row is None:
        assert path.may_hold - {NOTHING} <= {path.seen}
        return
    gone = {
        NOTHING: set[str](),
        FILE: {FILE},
        DIRECTORY: {DIRECTORY},
        EITHER: {FILE, DIRECTORY},
    }[path.row.clears]
    # A file is put over a file, and a directory is made where there is one, without clearing.
    assert path.may_hold - {NOTHING} <= gone | {path.row.kind}


@given(kinds, steps)
def test_what_is_deleted_leaves_nothing(stored: str, made: list[str]) -> None:
    path = after(stored, made)
    gone = vacated(path.row, path.visible, "/a")
    if gone is None:
        assert path.may_hold <= {NOTHING}
    else:
        assert gone.kind == ABSENT
        assert path.may_hold - {NOTHING} <= (
            {FILE, DIRECTORY} if gone.clears == EITHER else {gone.clears}
        )


@given(kinds, steps)
def test_every_version_of_ours_is_known_as_ours(stored: str, made: list[str]) -> None:
    path = after(stored, made)
    removes_any = path.row is not None and path.row.clears == EITHER
    if path.row is not None and FILE in (path.row.kind, path.row.clears) and not removes_any:
        assert path.versions <= {path.row.base, path.row.etag, *path.row.sent.split()}


@given(kinds, steps)
def test_what_was_never_begun_over_nothing_costs_nothing(stored: str, made: list[str]) -> None:
    if stored == NOTHING and not {"begin", "sent"} & set(made):
        path = after(stored, [*made, "delete"])
        assert path.row is None
