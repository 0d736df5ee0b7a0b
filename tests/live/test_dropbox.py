"""A Dropbox served by `davfusion serve`: faults, conflicts, other devices, and its costs."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from davfusion.stores.dropbox.content import MIB
from davfusion.stores.dropbox.credentials import Credentials, keep
from tests.live.drive import ask, cache_of, eventually, get, journal, move, put, wait_for_drain
from tests.live.held_line import held_line
from tests.live.serving import Serving, serving
from tests.live.test_faults import work

pytestmark = [pytest.mark.live, pytest.mark.slow]

FAULTS: dict[str, dict[str, Any]] = {
    "429": {"status": 429},
    "too many writes": {"status": 429, "reason": "too_many_write_operations"},
    "500": {"status": 500},
    "reset before": {"drop_request_after": 0},
    "reset after": {"drop_response_after": -1},
    "reset in the request": {"drop_request_after": 700},
    "truncated answer": {"drop_response_after": 20},
}
SEEN_SECONDS = 5
"""Until a change of another device shows."""


@pytest.fixture
def many(dropbox: Any) -> None:
    """A folder of 5,000 files."""
    for number in range(5000):
        dropbox.other.put(f"/Served/many/{number}", b"x")


@pytest.fixture
def share(dropbox: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serving]:
    """A folder of a Dropbox, by a login whose access tokens expire."""
    if "/Served" not in dropbox.other.tree():
        dropbox.other.mkdir("/Served")
    keep(Credentials(None, dropbox.app_key, dropbox.refresh_token), tmp_path / "login.json")
    monkeypatch.delenv("DAVFUSION_DROPBOX_TOKEN")
    monkeypatch.setenv("DAVFUSION_DROPBOX_TOKEN_FILE", str(tmp_path / "login.json"))
    with serving("dropbox:/served", tmp_path, "--write-back-delay", "0.1") as server:
        assert eventually((cache_of(server) / "feed").exists)
        yield server
    for secret in (dropbox.refresh_token, "sl.u."):
        assert secret not in server.log.read_text()


def stored(dropbox: Any) -> dict[str, bytes]:
    """The files of the share."""
    return {
        path.removeprefix("/Served/"): content
        for path, content in dropbox.other.tree().items()
        if content is not None
    }


def cost(dropbox: Any) -> Counter[str]:
    """The requests since the log was emptied, but for those that wait for changes."""
    log = dropbox.report()["log"]
    dropbox.control(reset="log")
    kinds = Counter(call["endpoint"].removeprefix("files/") for call in log)
    for kind in ("list_folder/longpoll", "oauth2/token"):
        del kinds[kind]
    return kinds


@pytest.mark.parametrize("fault", FAULTS)
def test_each_kind_of_request_fails_several_times(share: Serving, dropbox: Any, fault: str) -> None:
    kinds = ["list_folder.*", "get_metadata", "upload", "upload_session/start"]
    kinds += ["upload_session/append_v2", "upload_session/finish.*", "delete_batch", "move_v2"]
    rules = [{"endpoint": f"files/{kind}", "times": 2, **FAULTS[fault]} for kind in kinds]
    dropbox.control(faults=rules)
    model = work(share, "folder")
    wait_for_drain(share)
    met = {rule["endpoint"] for rule in dropbox.report()["faults"] if rule["times"] < 2}
    assert {"files/get_metadata", "files/upload", "files/move_v2"} <= met
    dropbox.control(reset="faults")
    assert stored(dropbox) == model
    for name, content in model.items():
        assert get(share, f"/{name}") == content
    assert journal(share, "SELECT * FROM conflict") == []


def test_everything_fails_now_and_then(share: Serving, dropbox: Any) -> None:
    dropbox.control(
        faults=[{"rate": 0.03, **fault} for fault in FAULTS.values()],
        settings={"contention_rate": 0.5, "contention_as": "mixed", "short_pages": 0.3},
    )
    model = work(share, "one")
    dropbox.control(expire_tokens=True)
    model |= work(share, "another")
    wait_for_drain(share)
    dropbox.control(reset="faults")
    assert stored(dropbox) == model
    assert journal(share, "SELECT * FROM conflict") == []


def test_both_versions_of_a_conflict_are_kept(share: Serving, dropbox: Any) -> None:
    dropbox.other.put("/Served/file", b"base")
    assert get(share, "/file") == b"base"
    dropbox.control(faults=[{"endpoint": "files/(upload|list_folder).*", "status": 503}])
    put(share, "/file", b"ours")
    dropbox.other.put("/Served/file", b"theirs")
    dropbox.control(reset="faults")
    wait_for_drain(share)
    found = stored(dropbox)
    assert found.pop("file") == b"theirs"
    (copy,) = found
    assert "conflicted copy" in copy
    assert found[copy] == b"ours"


def test_a_full_dropbox_loses_nothing(share: Serving, dropbox: Any) -> None:
    dropbox.control(settings={"quota": 1000})
    put(share, "/large", b"x" * 2000)
    put(share, "/small", b"y")
    failed = [("/large", "failed")]
    assert eventually(lambda: journal(share, "SELECT path, state FROM pending") == failed)
    assert stored(dropbox) == {"small": b"y"}
    assert get(share, "/large") == b"x" * 2000
    asked = b'<propfind xmlns="DAV:"><prop><quota-available-bytes/></prop></propfind>'
    assert b"quota-available-bytes>999<" in ask(share, "PROPFIND", "/", asked, Depth="0").content
    dropbox.control(settings={"quota": 10_000})
    put(share, "/large", b"x" * 2000)
    wait_for_drain(share)
    assert stored(dropbox)["large"] == b"x" * 2000


def test_a_full_dropbox_is_told_to_who_waits_for_it(dropbox: Any, tmp_path: Path) -> None:
    dropbox.control(settings={"quota": 1000})
    with serving("dropbox:", tmp_path, "--write-mode", "through") as server:
        assert ask(server, "PUT", "/large", b"x" * 2000).status == 507
        assert ask(server, "GET", "/large").status == 404


def test_another_devices_changes_show_without_polling(share: Serving, dropbox: Any) -> None:
    dropbox.other.put("/Served/Folder/file", b"first")
    assert eventually(lambda: ask(share, "GET", "/Folder/file").status == 200, SEEN_SECONDS)
    began = time.monotonic()
    dropbox.other.put("/Served/folder/FILE", b"second")
    assert eventually(lambda: get(share, "/Folder/file") == b"second", SEEN_SECONDS)
    print(f"seen after {time.monotonic() - began:.1f} s")
    dropbox.other.move("/Served/folder/file", "/Served/Folder/New")
    assert eventually(lambda: ask(share, "GET", "/Folder/New").status == 200, SEEN_SECONDS)
    assert eventually(lambda: ask(share, "GET", "/Folder/file").status == 404, SEEN_SECONDS)
    dropbox.other.delete("/Served/Folder")
    assert eventually(lambda: ask(share, "PROPFIND", "/Folder").status == 404, SEEN_SECONDS)
    ask(share, "PROPFIND", "/", Depth="1")
    cost(dropbox)
    for _ in range(10):
        assert ask(share, "PROPFIND", "/", Depth="1").status == 207
        assert ask(share, "GET", "/Folder/file").status == 404
        time.sleep(0.1)
    assert cost(dropbox) == {}


@pytest.mark.parametrize("end", [Serving.stop, Serving.kill])
def test_a_large_file_that_was_on_its_way_goes_on_in_parts(
    dropbox: Any, tmp_path: Path, end: Callable[[Serving], None]
) -> None:
    """Below 150 MiB all goes by one request, as long as nothing comes between."""
    content = random.Random(1).randbytes(60 * MIB)
    with held_line(int(dropbox.host.rpartition(":")[2]), 20 * MIB) as line:
        env = {"DROPBOX_API_CONTENT_HOST": f"127.0.0.1:{line.port}"}
        options = ("--write-back-delay", "0")
        with serving("dropbox:", tmp_path, *options, env=env) as server:
            put(server, "/large", content)
            assert eventually(lambda: journal(server, "SELECT progress FROM pending")[0][0] > 0)
            noted = "SELECT token FROM pending WHERE token IS NOT NULL"
            assert eventually(lambda: journal(server, noted))
            end(server)
            line.open()
            assert eventually(lambda: cost(dropbox)["upload"])  # it has been noticed there
            server.start()
            assert get(server, "/large") == content
            wait_for_drain(server)
            sent = cost(dropbox)
            assert (sent["upload"], sent["upload_session/append_v2"]) == (0, 8)
            assert dropbox.other.read("/large") == content
            put(server, "/other", content)
            wait_for_drain(server)
            assert cost(dropbox)["upload"] == 1


@pytest.mark.usefixtures("many")
def test_what_it_costs(share: Serving, dropbox: Any) -> None:
    """Numbers of docs/semantics.md."""
    rng = random.Random(1)
    assert ask(share, "PROPFIND", "/", Depth="1").content.count(b"<D:response") == 2
    cost(dropbox)
    assert ask(share, "PROPFIND", "/many", Depth="1").content.count(b"<D:response") == 5001
    listing = cost(dropbox)
    assert listing == {"list_folder": 1, "list_folder/continue": 2}
    ask(share, "MKCOL", "/new")
    wait_for_drain(share)
    cost(dropbox)
    contents = {f"/new/{number}": rng.randbytes(2000) for number in range(500)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: put(share, *item), contents.items()))
    wait_for_drain(share)
    upload = cost(dropbox)
    print(f"an upload of 500: {dict(upload)}")
    assert upload["upload"] + upload["upload_session/start"] == 500
    assert upload.total() < 900
    assert move(share, "/new", "/renamed").status == 201
    rename = cost(dropbox)
    print(f"a rename of a folder of 500: {dict(rename)}")
    assert rename.total() <= 6
    assert rename["move_v2"] == 1
    assert ask(share, "DELETE", "/renamed").status == 204
    wait_for_drain(share)
    deletion = cost(dropbox)
    print(f"the deletion of a folder of 500: {dict(deletion)}")
    assert deletion.total() <= 10
