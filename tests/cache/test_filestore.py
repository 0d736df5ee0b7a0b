"""FileStore: rows F1 to F6 of its documentation."""

import doctest
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

import davfusion.cache.filestore
from davfusion.cache.filestore import SPACES, FileNameError, FileStore

DOCUMENTED_SESSION = """
>>> filestore = FileStore(store_dir)
>>> filestore.prepare()
>>> filestore.prepare()
>>> f = filestore.create('a-file')
>>> filestore.list('tmp')
['.../tmp/a-file']
>>> f.write('Die Ente bleibt draussen!'); f.close()
25
>>> filestore.move('a-file', 'tmp', 'new')
>>> filestore.list('new')
['.../new/a-file']
>>> filestore.move('a-file', 'new', 'cur')
>>> filestore.copy('a-file', 'cur', 'tmp')
>>> filestore.list('cur')
['.../cur/a-file']
"""
BAD_NAMES = ["", ".", "..", "a/b", "/a", "a/", "a\\b", "a\0b", "../a", "..\\a", "C:a"]


@pytest.fixture
def filestore(tmp_path: Path) -> FileStore:
    filestore = FileStore(tmp_path / "store")
    filestore.prepare()
    return filestore


def fill(filestore: FileStore, name: str, content: bytes = b"content") -> None:
    with filestore.create(name, "wb") as file:
        file.write(content)


def test_the_documented_session(tmp_path: Path) -> None:
    names = {"FileStore": FileStore, "store_dir": str(tmp_path / "spool")}
    test = doctest.DocTestParser().get_doctest(DOCUMENTED_SESSION, names, "session", None, 0)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


def test_the_session_in_the_docstring() -> None:
    results = doctest.testmod(davfusion.cache.filestore, optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0


def test_nothing_is_touched_before_prepare(tmp_path: Path) -> None:
    FileStore(tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_prepare_makes_the_spaces_for_the_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "store"
    FileStore(folder).prepare()
    assert sorted(path.name for path in folder.iterdir()) == sorted(SPACES)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cur").touch()
    with pytest.raises(FileExistsError):
        FileStore(tmp_path).prepare()


def test_create_exclusively(filestore: FileStore) -> None:
    fill(filestore, "a")
    with pytest.raises(FileExistsError):
        filestore.create("a", "xb")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_everywhere(filestore: FileStore, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: filestore.create(name),
        lambda: filestore.path(name, "tmp"),
        lambda: filestore.move(name, "tmp", "new"),
        lambda: filestore.copy(name, "tmp", "new"),
        lambda: filestore.remove(name, "tmp"),
    ]
    for call in calls:
        with pytest.raises(FileNameError):
            call()


def test_unknown_spaces_are_refused(filestore: FileStore) -> None:
    fill(filestore, "a")
    for space in ("", "..", "old", "tmp/../new"):
        with pytest.raises(FileNameError):
            filestore.list(space)
        with pytest.raises(FileNameError):
            filestore.move("a", "tmp", space)


def test_move_does_not_overwrite(filestore: FileStore) -> None:
    fill(filestore, "a", b"first")
    filestore.move("a", "tmp", "new")
    fill(filestore, "a", b"second")
    with pytest.raises(FileExistsError):
        filestore.move("a", "tmp", "new")
    with pytest.raises(FileExistsError):
        filestore.copy("a", "tmp", "new")
    assert filestore.path("a", "new").read_bytes() == b"first"
    assert filestore.path("a", "tmp").read_bytes() == b"second"


def test_copy_leaves_the_source_and_nothing_else(filestore: FileStore) -> None:
    fill(filestore, "a")
    filestore.copy("a", "tmp", "cur")
    assert filestore.path("a", "cur").read_bytes() == b"content"
    assert filestore.path("a", "tmp").read_bytes() == b"content"
    assert len(list(filestore.path("a", "tmp").parent.parent.iterdir())) == len(SPACES)


def test_copy_of_nothing_leaves_nothing(filestore: FileStore) -> None:
    with pytest.raises(FileNotFoundError):
        filestore.copy("a", "tmp", "cur")
    assert filestore.list("cur") == []


def test_remove_only_within_its_space(filestore: FileStore) -> None:
    fill(filestore, "a")
    with pytest.raises(FileNotFoundError):
        filestore.remove("a", "new")
    filestore.copy("a", "tmp", "new")
    filestore.remove("a", "new")
    assert filestore.list("tmp")
    assert not filestore.list("new")


def claim_all(folder: Path, names: list[str]) -> list[str]:
    """The names whose claim this process wins."""
    filestore, won = FileStore(folder), []
    for name in names:
        try:
            filestore.move(name, "new", "cur")
        except FileNotFoundError:
            continue
        won.append(name)
    return won


def test_of_several_processes_exactly_one_wins_each_file(filestore: FileStore) -> None:
    names = [f"file-{number}" for number in range(300)]
    for name in names:
        fill(filestore, name)
        filestore.move(name, "tmp", "new")
    folder = filestore.path("x", "new").parent.parent
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        won = pool.starmap(claim_all, [(folder, names)] * 4)
    assert sorted(name for names_won in won for name in names_won) == sorted(names)
