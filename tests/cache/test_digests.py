"""The digest of a content: which it is, and that it is right however it comes."""

import hashlib
import io

import pytest

from davfusion.cache import digests
from davfusion.cache.pending import LARGE_FROM
from davfusion.stores.store import COPY_BUFFER


@pytest.mark.parametrize("size", [0, 1, COPY_BUFFER, COPY_BUFFER + 1, 20 * COPY_BUFFER])
def test_what_is_computed_beside_is_right_when_it_is_left(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    digest = digests.of_size(None)
    with digests.Beside(digest) as beside:
        for at in range(0, size, COPY_BUFFER):
            beside.update(data[at : at + COPY_BUFFER])
    assert digest.digest() == hashlib.md5(data, usedforsecurity=False).digest()


@pytest.mark.parametrize(
    ("size", "name"), [(None, "md5"), (LARGE_FROM - 1, "md5"), (LARGE_FROM, "sha256")]
)
def test_a_digest_says_by_its_length_which_it_is(size: int | None, name: str) -> None:
    digest = digests.of_size(size)
    assert digest.name == digests.like(digest.hexdigest()).name == name


def test_one_of_several_versions_is_recognised() -> None:
    md5 = hashlib.md5(b"one", usedforsecurity=False).hexdigest()
    sha = hashlib.sha256(b"two").hexdigest()
    assert digests.matching(io.BytesIO(b"one"), [sha, md5]) == md5
    assert digests.matching(io.BytesIO(b"two"), [sha, md5]) == sha
    assert digests.matching(io.BytesIO(b"three"), [sha, md5]) is None
    assert not digests.matches(io.BytesIO(b"two"), md5)
