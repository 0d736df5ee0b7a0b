"""One spelling of each path."""

import pytest

from davfusion.stores import paths
from davfusion.stores.spelling import canonical, fold

THERE = {"/Dir", "/Dir/Name.txt", "/Dir/caf\u00e9", "/Dir/Sub", "/Dir/Sub/x"}


def names_in(directory: str, _: str) -> list[str]:
    return [paths.name(path) for path in sorted(THERE) if paths.parent(path) == directory]


@pytest.mark.parametrize(
    ("given", "known_as"),
    [
        ("/", "/"),
        ("/Dir/Name.txt", "/Dir/Name.txt"),
        ("/DIR/nAME.TXT", "/Dir/Name.txt"),
        ("/dir/CAFE\u0301", "/Dir/caf\u00e9"),
        ("/dir/sub/X", "/Dir/Sub/x"),
        ("/dir/sub/New", "/Dir/Sub/New"),
        ("/dir/new/NEW", "/Dir/new/NEW"),
        ("/Other/e\u0301", "/Other/\u00e9"),
        ("/dir/name.txt2", "/Dir/name.txt2"),
    ],
)
def test_the_spelling_of_what_is_there(given: str, known_as: str) -> None:
    assert canonical(given, THERE.__contains__, names_in) == known_as
    assert fold(given) == fold(known_as)
