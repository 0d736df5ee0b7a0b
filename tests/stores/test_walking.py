"""Walking by listings, however deep."""

from davfusion.stores.store import Metadata, NoSuchFilesytemObjectError
from davfusion.stores.walking import depth_first

DIRECTORY = Metadata(modified=0.0, bytes=0, is_dir=True)


def test_a_tree_deeper_than_the_stack() -> None:
    def listing(directory: str) -> dict[str, Metadata]:
        return {} if len(directory) >= 10_000 else {"x": DIRECTORY}

    walked = [path for path, _ in depth_first("/", listing)]
    assert len(walked) == 5_000
    assert walked == sorted(walked)


def test_what_is_below_a_directory_comes_without_others_in_between() -> None:
    tree = {"/": ["a", "b"], "/a": ["x", "y"], "/a/x": ["z"]}

    def listing(directory: str) -> dict[str, Metadata]:
        if directory not in tree:
            raise NoSuchFilesytemObjectError(directory)
        return dict.fromkeys(tree[directory], DIRECTORY)

    walked = [path for path, _ in depth_first("/", listing)]
    assert walked == ["/a", "/a/x", "/a/x/z", "/a/y", "/b"]
