"""Pieces on machines that may die, with a cluster that does as it is told."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from tiltlab.errors import Stopped, UserError
from tiltlab.system import retrying
from tiltlab.system.board import Board
from tiltlab.system.retrying import TRIES, Running


class Cluster:
    """Pieces end, one a poll, as `fates` has it: an error, None, or how one is lost. `room`: after so many polls."""

    def __init__(self, fates: dict[int, list[Any]], room: Callable[[int], int] = lambda _: 9) -> None:
        self.fates, self.room = fates, room
        self.running: list[int] = []
        self.started: list[int] = []
        self.most = self.polls = 0
        self.waiting: set[int] = set()
        self.stopped = False

    def __call__(self, what: str, *given: Any) -> Any:
        return getattr(self, what)(*given)

    def start(self, number: int) -> None:
        assert not self.stopped
        self.running.append(number)
        self.started.append(number)
        self.most = max(self.most, len(self.running))

    def poll(self) -> Any:
        self.polls += 1
        messages: list[Any] = []
        if self.running and self.running[0] not in self.waiting:
            number = self.running.pop(0)
            fate = (self.fates.get(number) or [None]).pop(0) if self.fates.get(number) else None
            if isinstance(fate, tuple):
                messages = [("lost", number, *fate)]
            else:
                messages = [("told", number, "training", 1, 2), ("ended", number, pickle.dumps(("ended", fate)))]
        return self.room(self.polls), messages

    def stop(self) -> set[int]:
        self.stopped = True
        self.running = [number for number in self.running if number not in self.waiting]
        return self.waiting


def run(cluster: Cluster, pieces: int, jobs: int = 2, asked: Callable[[], bool] = lambda: False) -> list[Any]:
    told: list[Any] = []
    Running(cluster, pieces, lambda *news: told.append(news), asked).run(jobs)
    return told


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "APART", 0.05)


def test_all_are_done_in_order_so_many_at_a_time() -> None:
    cluster = Cluster({})
    told = run(cluster, 5)
    assert cluster.started == [0, 1, 2, 3, 4]
    assert cluster.most == 2
    assert told == [news for n in range(5) for news in ((n, "training", 1, 2), (n, "done", 0, 0))]


@pytest.mark.parametrize("fate", [("its worker", False), ("its node", True)])
def test_a_lost_piece_is_begun_again_with_one_line_of_news(fate: Any) -> None:
    cluster = Cluster({1: [fate, fate]})
    told = run(cluster, 3)
    assert sorted(cluster.started) == [0, 1, 1, 1, 2]
    news = [line for _, _, done, total, *line in told if line]
    assert [text for (text,) in news] == [
        f"{fate[0]} was lost; it goes on elsewhere from its last checkpoint (try {n} of {TRIES})" for n in (2, 3)
    ]
    assert all(total for _, _, _, total, *line in told if line)  # 0 would mean done
    assert {number for number, doing, *_ in told if doing == "done"} == {0, 1, 2}


def test_a_piece_of_a_lost_node_waits_and_the_others_do_not() -> None:
    cluster = Cluster({0: [("its node", True)]})
    run(cluster, 3, jobs=1)
    assert cluster.started == [0, 1, 2, 0]


def test_a_piece_that_is_lost_each_time_ends_the_study() -> None:
    cluster = Cluster({0: [("its worker", False)] * 9})
    with pytest.raises(UserError, match=r"its worker was lost.*4 times.*what was saved is kept"):
        run(cluster, 12)
    assert cluster.started.count(0) == TRIES
    assert cluster.stopped


def test_an_error_stops_the_others_first() -> None:
    cluster = Cluster({0: [UserError("a full disk")], 1: [Stopped("saved")]})
    with pytest.raises(UserError, match="a full disk"):
        run(cluster, 9)
    assert (cluster.started, cluster.stopped) == ([0, 1], True)


def test_when_asked_all_save_and_what_waits_for_a_worker_never_begins() -> None:
    cluster = Cluster({0: [Stopped("saved")]})
    cluster.waiting = {1}
    with pytest.raises(Stopped):
        run(cluster, 5, asked=lambda: cluster.polls > 0 or bool(cluster.started))
    assert cluster.started == [0, 1]


def test_what_is_lost_while_it_stops_is_not_begun_again() -> None:
    cluster = Cluster({0: [("its node", True)]})
    with pytest.raises(Stopped):
        run(cluster, 5, jobs=1, asked=lambda: bool(cluster.started))
    assert cluster.started == [0]


def test_without_a_node_it_ends_in_one_line() -> None:
    cluster = Cluster({0: [("its node", True)]}, room=lambda _: 0)
    with pytest.raises(UserError, match="no node is left that could do the work; what was saved is kept"):
        run(cluster, 3, jobs=1)


def test_fewer_run_where_a_node_is_gone() -> None:
    cluster = Cluster({}, room=lambda _: 1)
    run(cluster, 6, jobs=3)
    assert cluster.most == 3  # before anything was known
    assert cluster.started == list(range(6))


def test_a_board_says_which_have_begun_and_takes_no_more_once_they_are_to_stop() -> None:
    board = Board()
    assert board.begin(0)
    assert board.begin(1)
    board.tell(0, "training", 1, 2)
    board.expect(1)  # it was lost, and waits for a worker
    assert board.take() == [("told", 0, "training", 1, 2)]
    assert board.take() == []
    assert (board.is_stopping(), board.ask_to_stop(), board.is_stopping()) == (False, {0}, True)
    assert not board.begin(1)
