"""A study on two local Ray nodes: a worker, a node and the head are killed, and its files end as a local run's."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import Command
from tests.processes import runs, wait_until
from tests.study.test_kills import contents

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make contract-ray")

STUDY: dict[str, Any] = {
    "name": "small",
    "tasks": ["lazy-sum"],
    "arms": ["base", "task_reward", {"arm": "tempered", "alpha": 2}],
    "train": {"steps": 20, "prompts": 3, "responses": 4, "max_tokens": 24, "optimizer": {"lr": 1e-3}},
    "validation": {"every": 4, "problems": 4, "n": 1},
    "test": {"problems": 4, "n": 2, "forecast_n": 2},
}

SOONER = "import tiltlab.system.retrying as retrying; retrying.APART = 5.0"
"""A node that is killed here is not merely cut off."""

LONGEST = 400


class Cluster:
    """A head and a second node, of one CPU each, on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {"num_cpus": 1, "object_store_memory": 80 << 20}
        head = settings | {"include_dashboard": False, "ray_client_server_port": self.port}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._second = self._cluster.add_node(**settings)
        self.address = self._cluster.address

    def kill_second(self) -> None:
        self._cluster.remove_node(self._second, allow_graceful=False)

    def kill_head(self) -> None:
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def end(self) -> None:
        self._cluster.shutdown()


@contextmanager
def cluster() -> Iterator[Cluster]:
    nodes = Cluster()
    try:
        yield nodes
    finally:
        nodes.end()


def study(out: Path, seeds: int, *more: str) -> list[str]:
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(STUDY))
    return ["study", str(recipe), "--seeds", str(seeds), "--out", str(out), *more]


def undisturbed(folder: Path, seeds: int) -> dict[str, Any]:
    command = Command(*study(folder / "local", seeds, "--jobs", "1"))
    assert command.ended(LONGEST) == 0, command.said()
    return contents(folder / "local")


def finished(command: Command) -> str:
    assert command.ended(LONGEST) == 0, command.said()
    return command.said()


def worker_in_training(command: Command, out: Path, but: tuple[int, ...] = ()) -> int:
    """The process of a job that has a checkpoint, waited for."""
    found: list[int] = []

    def is_there() -> bool:
        assert command.poll() is None, command.said()
        for path in out.glob("cells/*/*/*/place.json"):
            with suppress(FileNotFoundError, ValueError):
                at = json.loads(path.read_text()).get("at")
                if at and at["process"] not in but and list(path.parent.glob("checkpoints/step-*")):
                    found.append(at["process"])
        return bool(found)

    wait_until(is_there, LONGEST)
    return found[0]


@pytest.mark.timeout(LONGEST * 3)
def test_a_worker_and_a_node_killed_leave_the_files_of_a_local_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = undisturbed(tmp_path, seeds=4)
    with cluster() as nodes:
        command = Command(*study(out, 4, "--on", "ray"), first=SOONER, RAY_ADDRESS=nodes.address)
        killed = worker_in_training(command, out)
        os.kill(killed, signal.SIGKILL)
        worker_in_training(command, out, but=(killed,))
        nodes.kill_second()
        said = finished(command)
    assert contents(out) == expected
    assert len(list(out.glob("cells/*/*/*/result.json"))) == 12
    assert "its worker was lost; it goes on elsewhere from its last checkpoint (try 2 of 4)" in " ".join(said.split())
    assert "its node was lost" in said
    assert "Traceback" not in said
    assert "raylet" not in said


@pytest.mark.timeout(LONGEST * 3)
def test_without_its_head_it_ends_with_all_kept_and_goes_on_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = undisturbed(tmp_path, seeds=1)
    with cluster() as nodes:
        command = Command(*study(out, 1, "--on", "ray"), RAY_ADDRESS=nodes.address)
        worker = worker_in_training(command, out)
        nodes.kill_head()
        assert command.ended(LONGEST) == 2, command.said()
        wait_until(lambda: not runs(worker))
    assert "the Ray cluster is gone" in (said := " ".join(command.said().split()))
    assert "what was saved is kept: give the same command again" in said
    assert "Traceback" not in said
    assert list(out.glob("cells/*/*/*/checkpoints/step-*"))
    with cluster() as nodes:  # by Ray's client, from outside
        finished(Command(*study(out, 1, "--on", f"ray://127.0.0.1:{nodes.port}")))
    assert contents(out) == expected


@pytest.mark.timeout(LONGEST * 3)
def test_a_signal_has_all_jobs_save_and_a_second_one_ends_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = undisturbed(tmp_path, seeds=1)
    with cluster() as nodes:
        for on in ("ray", f"ray://127.0.0.1:{nodes.port}"):
            command = Command(*study(out, 1, "--on", on), RAY_ADDRESS=nodes.address)
            worker_in_training(command, out)
            os.kill(command.pid, signal.SIGTERM)
            assert command.ended(LONGEST) == 128 + signal.SIGTERM, command.said()
            assert "the same command goes on from there" in command.said()
        command = Command(*study(out, 1, "--on", "ray"), RAY_ADDRESS=nodes.address)
        worker = worker_in_training(command, out)
        began = time.monotonic()
        for _ in range(2):
            os.killpg(command.pid, signal.SIGINT)
            time.sleep(0.2)
        assert command.ended(30) == 128 + signal.SIGINT, command.said()
        assert time.monotonic() - began < 30
        wait_until(lambda: not runs(worker))
        finished(Command(*study(out, 1, "--on", "ray"), RAY_ADDRESS=nodes.address))
    assert contents(out) == expected
