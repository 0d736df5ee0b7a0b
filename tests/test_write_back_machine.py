"""A share with write-back against a dictionary: two workers, a mover, and a foreign writer.

Every request goes through the WSGI application to a journal and a spool, and from there to a
service that fails now and then. What a worker acknowledged reads back on both workers, before it
is sent and after; whatever ends, and whenever the power fails, nothing acknowledged is lost; once
all is sent, the store holds the dictionary. Where a foreign edit met one of ours, both are there
in the end (invariants 1, 2, 3, 4, 6, 9, 10).
"""

import os
from io import BytesIO

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from davfusion.cache.mover import ROOM
from davfusion.cache.pending import ABSENT
from davfusion.stores import paths
from tests.flaky import Fault
from tests.writeback_model import Contest, File, Spot, WriteBackModel, bodies, inside, is_copy, up

pytestmark = pytest.mark.timeout(900)  # a long profile takes minutes
NAMES = ("a", "ü b", "c.txt")
FAULTS: list[Fault] = ["before", "half-way", "after", None]
anywhere = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda n: "/" + "/".join(n))
in_folder = st.tuples(st.integers(0, 5), st.sampled_from(NAMES))
spots = st.one_of(in_folder, in_folder, in_folder, anywhere)
numbers = st.integers(0, 20)
cuts = st.sampled_from([0, 0, 0, 0, 0, 0, *range(1, 10)])
"""At which change of the disk or call of the service the power fails; 0: not."""
workers = st.integers(0, 1)
calls = st.integers(1, 6)


class WriteBackMachine(WriteBackModel):
    @rule(
        worker=workers,
        path=spots,
        more=st.binary(max_size=20),
        condition=st.sampled_from(["", "", "If-Match", "If-None-Match", "stale"]),
        cut=cuts,
    )
    def put(self, worker: int, path: Spot, more: bytes, condition: str, cut: int = 0) -> None:
        path, self.power = self.at(path), cut
        self.calm(path, but=path)
        if path in self.contests:
            self.put_where_others_write(worker, path, condition == "If-Match")
            return
        old, body = self.tree.get(path), self.new_body(more)
        headers = self.conditional(worker, path, condition)
        reply = self.send(worker, "PUT", path, body=body, headers=headers)
        if reply is None or reply.status == 503:
            assert self.has_row(path, body) <= (reply is None)
        elif self.is_folder(path):
            assert reply.status == 405
        elif not self.is_folder(up(path)):
            assert reply.status == 409
        elif condition == "stale" or (condition == "If-None-Match" and old is not None):
            assert reply.status == 412
        else:
            assert reply.status == (204 if old else 201)
            assert self.has_row(path, body)
        if self.has_row(path, body):
            self.acknowledged(path, body, reply)

    def conditional(self, worker: int, path: str, condition: str) -> dict[str, str]:
        """Headers; the service is well where they have what is known of the parents asked again."""
        if condition and not self.is_folder(up(path)):
            self.service.faults = []
        if condition == "If-Match" and self.tree.get(path) is not None:
            with self.in_peace():
                return {"If-Match": self.server.clients[worker].etag(path)}
        stale = {"If-Match": '"nobody has this"'}
        return {"stale": stale, "If-None-Match": {"If-None-Match": "*"}}.get(condition, {})

    @rule(worker=workers, path=spots)
    def put_without_the_service(self, worker: int, path: Spot) -> None:
        """What there was, of which nothing is known, stays beside it."""
        path = self.at(path)
        self.calm(path)
        if self.is_folder(path) or not self.is_folder(up(path)):
            return
        old, dirty = self.tree.get(path), self.server.journal.view(path).row is not None
        self.service.faults = ["before"] * 20
        body = self.new_body(b"blind")
        reply = self.server.clients[worker].put(path, body)
        self.service.faults = []
        assert reply.status in (201, 204)
        row = self.server.journal.view(path).row
        assert row is not None
        if old is not None and not dirty and row.base == "":
            del self.tree[path]
            self.contests[path] = Contest(old.body, File(body, reply.headers["etag"]))
        else:
            self.acknowledged(path, body, reply)

    def put_where_others_write(self, worker: int, path: str, conditional: bool) -> None:
        contest, client = self.conclude(path), self.server.clients[worker]
        body, headers = self.new_body(), {}
        with self.in_peace():
            shown = client("HEAD", path)
        pending = self.server.journal.view(path).row
        knowing = self.is_true(path, shown) if pending is None else contest.knowing
        if pending is not None and pending.kind == ABSENT:
            knowing = pending.base == self.version(path)
        if conditional and shown.status == 200:
            headers["If-Match"] = shown.headers["etag"]
        reply = self.send(worker, "PUT", path, body=body, headers=headers)
        if reply is not None and reply.status == 412:
            assert headers
            assert pending is None
            assert not knowing
        elif self.has_row(path, body):
            contest.ours, contest.knowing = File(body), knowing
            with self.in_peace():
                assert [c.get(path).body for c in self.server.clients] == [body, body]
            if reply is not None:
                contest.ours = File(body, reply.headers["etag"], reply.headers["last-modified"])
        else:
            assert reply is None or reply.status == 503

    @rule(worker=workers, path=spots)
    def put_that_breaks_off(self, worker: int, path: Spot) -> None:
        path = self.at(path)
        body = self.new_body()
        headers = {"Content-Length": str(len(body) + 1)}
        reply = self.send(worker, "PUT", path, body=BytesIO(body), headers=headers)
        assert reply is None or reply.status in (400, 405, 409, 503)
        assert not self.has_row(path, body)

    @rule(worker=workers, path=spots, cut=cuts)
    def mkcol(self, worker: int, path: Spot, cut: int = 0) -> None:
        path, self.power = self.at(path), cut
        self.calm(path)
        reply = self.send(worker, "MKCOL", path)
        if reply is None:
            with self.in_peace():
                is_there = self.server.clients[0].propfind(path).status == 207
            if is_there and path not in self.tree:
                self.tree[path] = None
        elif reply.status == 503:
            pass
        elif path in self.tree:
            assert reply.status == 405
        elif not self.is_folder(up(path)):
            assert reply.status == 409
        else:
            assert reply.status == 201
            self.tree[path] = None
        self.check(path)

    @rule(worker=workers, path=spots, cut=cuts)
    def delete(self, worker: int, path: Spot, cut: int = 0) -> None:
        path, self.power = self.at(path), cut
        self.calm(path, but=path)
        if path in self.contests:
            self.delete_where_others_write(worker, path)
            return
        reply = self.send(worker, "DELETE", path)
        if reply is None:
            with self.in_peace():
                if self.server.clients[0].propfind(path).status == 404:
                    self.drop(path)
        elif reply.status != 503:
            assert reply.status == (204 if path in self.tree else 404)
            self.drop(path)
        self.check(path)

    @precondition(lambda self: self.tree)
    @rule(worker=workers, number=numbers, cut=cuts)
    def delete_what_is_there(self, worker: int, number: int, cut: int) -> None:
        self.delete(worker, self.some(number), cut)

    @precondition(lambda self: self.tree)
    @rule(worker=workers, number=numbers, cut=cuts)
    def rewrite(self, worker: int, number: int, cut: int) -> None:
        self.put(worker, self.some(number), b"again", "", cut)

    def delete_where_others_write(self, worker: int, path: str) -> None:
        contest, client = self.conclude(path), self.server.clients[worker]
        with self.in_peace():
            shown = client("HEAD", path)
        pending = contest.ours is not None
        knowing = contest.knowing if pending else self.is_true(path, shown)
        reply = self.send(worker, "DELETE", path)
        row = self.server.journal.view(path).row
        if reply is not None and reply.status == 404:
            assert shown.status == 404
        gone = pending if row is None else row.kind == ABSENT
        if (reply is None or reply.status == 503) and not gone:
            return
        if pending and (row is None or row.kind == ABSENT):
            contest.ours = None
        if knowing and (row is None or row.kind == ABSENT):
            contest.theirs, contest.knowing = None, False

    @rule(
        worker=workers,
        method=st.sampled_from(["COPY", "MOVE"]),
        src=spots,
        dst=spots,
        overwrite=st.sampled_from(["T", "F"]),
    )
    def transfer(self, worker: int, method: str, src: Spot, dst: Spot, overwrite: str) -> None:
        self.carry_out(worker, method, self.at(src), self.at(dst), overwrite)

    @precondition(lambda self: self.tree)
    @rule(
        worker=workers,
        method=st.sampled_from(["COPY", "MOVE", "MOVE"]),
        src=numbers,
        dst=in_folder,
        cut=cuts,
        faults=st.sampled_from(
            [[], [], ["after"], ["before"] * 2, ["after"] * 2, [None, "after", "after"]]
        ),
        overwrite=st.sampled_from(["T", "F"]),
    )
    def transfer_what_is_there(
        self,
        worker: int,
        method: str,
        src: int,
        dst: Spot,
        cut: int,
        faults: list[Fault],
        *,
        overwrite: str,
    ) -> None:
        self.power, self.service.faults = cut, list(faults)
        self.carry_out(worker, method, self.some(src), self.at(dst), overwrite)

    @precondition(lambda self: self.tree)
    @rule(
        worker=workers, method=st.sampled_from(["COPY", "MOVE", "MOVE"]), src=numbers, dst=numbers
    )
    def transfer_over_what_is_there(self, worker: int, method: str, src: int, dst: int) -> None:
        self.carry_out(worker, method, self.some(src), self.some(dst), "T")

    def carry_out(self, worker: int, method: str, src: str, dst: str, overwrite: str) -> None:
        self.calm(src, dst)
        headers = {"Destination": dst, "Overwrite": overwrite}
        stored = set(self.held().values())
        reply = self.send(worker, method, src, headers=headers)
        existed = dst in self.tree
        if reply is None or reply.status == 503:
            if src in self.tree and not inside(dst, src) and not inside(src, dst):
                self.learn(src, dst, stored, keep=method == "COPY")
        elif src not in self.tree:
            assert reply.status == 404
        elif (inside(dst, src) and (dst == src or self.is_folder(src))) or inside(src, dst):
            assert reply.status == 403
        elif not existed and not self.is_folder(up(dst)):
            assert reply.status == 409
        elif existed and overwrite == "F":
            assert reply.status == 412
        else:
            assert reply.status == (204 if existed else 201)
            self.tree = self.carried(src, dst, keep=method == "COPY")
        self.both_workers_show_the_tree()

    def learn(self, src: str, dst: str, stored: set[bytes | None], *, keep: bool) -> None:
        """A transfer whose answer was lost: nobody knows how far it came, but nothing is lost.

        What the store had at `src`, and clients did not see any more, may have come along.
        """
        with self.in_peace():
            self.give_up_what_lies_below_a_file(dst)
            self.end_contests()
        before, after = self.tree, self.carried(src, dst, keep=keep)
        held = self.held()
        assert {p for p in held if inside(p, src)} in (
            {p for p in tree if inside(p, src)} for tree in (before, after)
        )
        known = {None, *stored, *bodies(before).values()}
        for path in held.keys() | before.keys():
            aside = any(is_copy(step, dst) for step in (path, *paths.ancestors(path)))
            if (
                not (aside and path not in before)
                and not inside(path, src)
                and not inside(path, dst)
            ):
                assert held[path] == bodies(before)[path]
            assert held.get(path) in known
        if src not in held:
            arrived = {body for p, body in held.items() if inside(p, dst)}
            assert {b for p, b in bodies(after).items() if inside(p, dst)} <= arrived
        self.tree = {
            path: self.tree[path]
            if self.tree.get(path) and bodies(before).get(path) == body and not inside(path, dst)
            else (None if body is None else File(body))
            for path, body in held.items()
        }

    def give_up_what_lies_below_a_file(self, dst: str) -> None:
        """Where the folder of what was to be sent has been replaced, somebody must see to it."""
        self.server.outbox.hurry()
        self.server.step()
        while (failed := self.server.outbox.first_failed()) is not None:
            above = [up for up in paths.ancestors(failed.path) if self.truth.exists(up)]
            assert inside(failed.path, dst)
            assert not self.truth.is_dir(above[0])
            assert self.server.clients[0]("DELETE", failed.path).status == 204

    @rule(path=spots)
    def foreign_write(self, path: Spot) -> None:
        path = self.at(path)
        if self.may_be_changed_by_others(path):
            contest = self.contested(path)
            body = self.new_body(b"foreign")
            self.truth.store_fileobject(BytesIO(body), path)
            contest.theirs, contest.knowing = body, False

    @rule(path=spots)
    def foreign_delete(self, path: Spot) -> None:
        path = self.at(path)
        if self.may_be_changed_by_others(path) and self.truth.exists(path):
            contest = self.contested(path)
            self.truth.delete(path)
            contest.theirs, contest.knowing = None, False

    @rule(seconds=st.sampled_from([0.5, 2.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def the_service_fails_a_while(self, faults: list[Fault]) -> None:
        self.service.faults = faults

    @rule(one=st.booleans(), hurry=st.booleans(), cut=cuts)
    def the_mover_sends(self, one: bool, hurry: bool, cut: int) -> None:
        self.power = cut
        self.send_due(one, hurry)

    def send_due(self, one: bool, hurry: bool) -> None:
        if hurry:
            self.server.outbox.hurry()
        room = dict.fromkeys(ROOM, 1) if one else ROOM
        self.until_the_power_fails(lambda: self.server.step(room))

    @rule(at=calls, worker=workers, path=spots, remove=st.booleans(), make=st.booleans())
    def the_mover_sends_while_a_client_writes(
        self, at: int, worker: int, path: Spot, remove: bool, make: bool
    ) -> None:
        path = self.at(path)
        self.calm(path)

        def meanwhile() -> None:
            with self.in_peace():
                if remove and path in self.tree:
                    self.delete(worker, path)
                if make:
                    self.mkcol(worker, path)
                else:
                    self.put(worker, path, b"", "")

        self.service.at, self.service.meanwhile = at, meanwhile
        self.send_due(one=False, hurry=True)
        self.service.meanwhile = None

    @rule(at=calls, worker=workers, path=spots, dst=spots, remove=st.booleans())
    def a_client_writes_while_the_mover_sends(
        self, at: int, worker: int, path: Spot, dst: Spot, remove: bool
    ) -> None:
        path, dst = self.at(path), self.at(dst)
        self.server.outbox.hurry()
        self.service.at = at
        self.service.meanwhile = self.server.step
        if path in self.tree and not remove:
            self.carry_out(worker, "MOVE", path, dst, "T")
        elif remove:
            self.delete(worker, path)
        else:
            self.put(worker, path, b"", "")
        self.service.meanwhile = None

    @rule(recover=st.booleans())
    def the_server_starts_again(self, recover: bool) -> None:
        self.restart(recover=recover)
        self.both_workers_show_the_tree()

    @precondition(lambda self: self.tree)
    @rule(worker=workers, number=numbers, start=st.integers(0, 9), length=st.integers(1, 9))
    def read_range(self, worker: int, number: int, start: int, length: int) -> None:
        path = self.some(number)
        file = self.tree[path]
        if file is None:
            return
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        with self.in_peace():
            reply = self.send(worker, "GET", path, headers=headers)
        if reply is None:
            return
        if start >= len(file.body):
            assert reply.status == 416
        else:
            assert (reply.status, reply.body) == (206, file.body[start : start + length])

    @rule(worker=workers, path=spots)
    def list_folder(self, worker: int, path: Spot) -> None:
        path = self.at(path)
        reply = self.send(worker, "PROPFIND", path, headers={"Depth": "1"})
        if reply is None or reply.status == 503 or path in self.contests:
            return
        assert reply.status == (207 if path in self.tree else 404)
        if reply.status == 207:
            shown = {p.rstrip("/") for p in reply.properties()} - {path}
            self.check_names(shown, lambda p: up(p) == path)


WriteBackMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("DAVFUSION_MACHINE_EXAMPLES", "200")),
    stateful_step_count=40,
    deadline=None,
)
TestWriteBack = WriteBackMachine.TestCase
