"""The digest of a content: which it is, and that it is right however it comes."""

import hashlib
import io

import pytest
import xxhash

from davfusion.cache import digests
from davfusion.cache.pending import LARGE_FROM

CONTENT = b"some content"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
XXH3 = "xxh3-" + xxhash.xxh3_128_hexdigest(CONTENT)


@pytest.mark.parametrize(
    ("size", "expected"), [(None, MD5), (LARGE_FROM - 1, MD5), (LARGE_FROM, XXH3)]
)
def test_a_digest_says_by_its_beginning_which_it_is(size: int | None, expected: str) -> None:
    digest = digests.of_size(size)
    digest.update(CONTENT[:5])
    digest.update(CONTENT[5:])
    assert digest.hexdigest() == expected
    assert digests.matches(io.BytesIO(CONTENT), expected)
    assert not digests.matches(io.BytesIO(CONTENT + b"!"), expected)


def test_one_of_several_versions_is_recognised() -> None:
    other = "xxh3-" + xxhash.xxh3_128_hexdigest(b"other")
    assert digests.matching(io.BytesIO(CONTENT), [other, MD5]) == MD5
    assert digests.matching(io.BytesIO(b"other"), [other, MD5]) == other
    assert digests.matching(io.BytesIO(b"third"), [other, MD5]) is None
