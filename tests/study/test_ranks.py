"""A job on several ranks: its files are those that one process makes, and whatever happens it goes on."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.ranks import on_ranks
from tests.study.ranked import TRAINED, all_jobs, killed_at, ranked
from tests.study.test_study import essence
from tiltlab.errors import Stopped
from tiltlab.system.world import ALONE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one")
    all_jobs(ALONE, run)
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("two")
    assert on_ranks(2, all_jobs, run) == [None, None]
    return run


def close(one: Any, other: Any) -> None:
    """Equal, but for what rounding makes of numbers and for how many ranks made them."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one.keys() - {"ranks", "seconds", "reference"}:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            close(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=2e-5)
    else:
        assert one == other


def weights(run: Path, step: int = 5) -> dict[str, Any]:
    return load_file(TRAINED.folder(run).checkpoints.step(step) / "model.safetensors")


def test_a_study_on_two_ranks_comes_to_what_one_makes(one: Path, two: Path) -> None:
    close(essence(one), essence(two))
    assert {path.relative_to(one) for path in one.rglob("*")} == {path.relative_to(two) for path in two.rglob("*")}


def test_files_say_how_many_ranks_made_them(one: Path, two: Path) -> None:
    for run, ranks in ((one, 1), (two, 2)):
        told = [
            line for name, lines in essence(run).items() if "metrics" in name or "sampling" in name for line in lines
        ]
        assert len(told) == 5 + 4
        assert {line["ranks"] for line in told} == {ranks}


@pytest.mark.parametrize("news", [2, 5])
def test_a_stop_stops_all_ranks_where_it_is_saved_and_any_number_goes_on(news: int, two: Path, tmp_path: Path) -> None:
    stops = on_ranks(2, ranked, tmp_path, TRAINED, news)
    assert [type(stop) for stop in stops] == [Stopped, Stopped]
    assert str(stops[0]) == str(stops[1])
    assert on_ranks(2, ranked, tmp_path) == [None, None]
    assert essence(tmp_path)[name_of("records-last.jsonl")] == essence(two)[name_of("records-last.jsonl")]


def name_of(file: str) -> str:
    return str((TRAINED.folder(Path("run")).path / file).relative_to("run"))


@pytest.mark.parametrize(("moment", "others"), [(0, 1), (1, 4), (2, 1)])
def test_killed_at_a_random_moment_any_number_of_ranks_goes_on(
    moment: int, others: int, two: Path, tmp_path: Path
) -> None:
    syncs = random.Random(moment).randint(8, 40)
    died, failed = on_ranks(2, killed_at, tmp_path / "run", syncs)
    assert isinstance(died, EOFError)
    assert isinstance(failed, Exception)
    shutil.copytree(tmp_path / "run", tmp_path / "others")
    assert on_ranks(2, ranked, tmp_path / "run") == [None, None]
    found, expected = essence(tmp_path / "run"), essence(two)
    assert found == {name: expected[name] for name in found}
    assert all((tensor == weights(two)[name]).all() for name, tensor in weights(tmp_path / "run").items())
    if others > 1:
        assert on_ranks(others, ranked, tmp_path / "others") == [None] * others
    else:
        ranked(ALONE, tmp_path / "others")
    found = essence(tmp_path / "others")
    close(found, {name: expected[name] for name in found})
