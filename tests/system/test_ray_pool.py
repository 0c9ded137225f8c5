"""What of a Ray cluster can be looked at without one; the rest is tests/contract_ray's."""

import os
import pickle
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.system.pieces import leaves_a_file, nothing_first
from tiltlab.errors import UserError
from tiltlab.system import process_pool, ray_pool
from tiltlab.system.board import Board
from tiltlab.system.placing import Share
from tiltlab.system.process_pool import Pool
from tiltlab.system.ray_pool import RayPool, _Line, _work, on_ray
from tiltlab.system.remote import Ended, Refused

ALONE = Share(0, 1, 1, 1)


@pytest.mark.parametrize("on", ["slurm", "ray:", "rays", "head:6379"])
def test_another_kind_of_cluster_is_refused(on: str, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=f"--on {on}: it is ray, or ray://HEAD:10001"),
        on_ray(on, tmp_path, device="cpu"),
    ):
        pass


@pytest.mark.parametrize("on", ["ray", "ray://head:10001"])
def test_without_ray_it_says_what_to_install(on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'tiltlab\[ray\]'") as told, on_ray(on, tmp_path, device="cpu"):
        pass
    assert len(told.value.lines) == 1
    assert not list(tmp_path.iterdir())


class Local:
    """An actor, and Ray itself, of this process."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: getattr(self._board, name)(*given))


class Driver:
    """Does each piece at once, as a worker of Ray's would."""

    def __init__(self, folder: Path) -> None:
        self.board, self.folder, self.done = Board(), folder, list[Any]()

    def call(self, name: str, *given: Any) -> Any:
        return getattr(self, name)(*given)

    def open(self, messages: Any, begin: bytes, device: str, share: Share) -> None:
        self.given = messages, begin, device

    def start(self, number: int) -> None:
        messages, begin, device = self.given
        environment = {"OMP_NUM_THREADS": os.environ["OMP_NUM_THREADS"]}
        path = [str(self.folder), *sys.path]
        work = _work(Local(self.board), number, messages[number], begin, device, path, environment)
        self.done.append(("ended", number, work))

    def poll(self) -> Any:
        done, self.done = self.done, []
        return 1, [*self.board.take(), *done]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda found, timeout=None: found))
    monkeypatch.chdir(tmp_path)
    return Driver(tmp_path)


def test_it_does_as_the_pool_of_this_machine_does(driver: Driver, tmp_path: Path) -> None:
    pools: list[tuple[Pool, Path]] = [(process_pool, tmp_path / "a"), (RayPool(driver, ALONE, 1, 1), tmp_path / "b")]  # type: ignore[arg-type]
    told: list[list[Any]] = []
    for pool, folder in pools:
        folder.mkdir()
        news: list[Any] = []
        pieces = [partial(leaves_a_file, folder)] * 3
        pool.run_all(
            pieces, jobs=1, begin=nothing_first, devices=["cpu"], on_progress=lambda *given, to=news: to.append(given)
        )
        assert len(list(folder.iterdir())) == 3
        told.append(news)
        assert pool.ask(partial(int, "7")) == 7
        with pytest.raises(ValueError, match="invalid literal"):
            pool.ask(partial(int, "x"))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (Ended("ended (exit code 1)"), "the Ray cluster is gone .*exit code 1.*what was saved is kept"),
        (Refused("the Ray cluster is gone (x)"), "the Ray cluster is gone .x."),
    ],
)
def test_a_driver_that_is_gone_is_told_in_one_line(raised: Exception, said: str, tmp_path: Path) -> None:
    class Gone:
        def call(self, *_: Any) -> Any:
            raise raised

    pool = RayPool(Gone(), ALONE, 1, 1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said):
        pool.ask(partial(int, "7"))


def test_a_worker_whose_driver_does_not_answer_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def get(found: Any, timeout: float | None = None) -> Any:
        if timeout:
            raise TimeoutError
        return found

    def end(code: int) -> None:
        codes.append(code)
        line._ended.set()  # this process goes on
        ended.set()

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=get))
    monkeypatch.setattr(ray_pool.os, "_exit", end)
    with (line := _Line(Local(Board()), 0)):
        assert ended.wait(60)
    assert codes == [1]


def test_a_piece_that_is_begun_after_a_stop_does_nothing(driver: Driver, tmp_path: Path) -> None:
    driver.board.ask_to_stop()
    piece = pickle.dumps(partial(leaves_a_file, tmp_path))
    kind, error = pickle.loads(_work(Local(driver.board), 0, piece, pickle.dumps(nothing_first), "cpu", [], {}))
    assert (kind, str(error)) == ("ended", process_pool.STOPPED)
    assert not list(tmp_path.iterdir())
