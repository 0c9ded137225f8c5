"""A training that was stopped, and whose folder was damaged or whose disk filled up: nothing lost is trained over."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tests.cli.test_cli import run as command
from tests.study.test_study import STUDY, essence, study
from tiltlab.config.recipe import Recipe
from tiltlab.errors import Stopped, UserError
from tiltlab.models.hf import HFModel
from tiltlab.storage.files import append_line, read_json, read_lines
from tiltlab.storage.run_folder import JobDir
from tiltlab.study.held import keep_room, room_left
from tiltlab.study.job import Work
from tiltlab.study.resume import State
from tiltlab.study.run import run_job
from tiltlab.study.study import plan
from tiltlab.training.alarms import Watch
from tiltlab.training.room import Room

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = STUDY | {
    "arms": ["task_reward"],
    "train": STUDY["train"] | {"steps": 4, "prompts": 2, "responses": 3, "max_tokens": 8},
    "validation": {"every": 2, "problems": 2, "n": 1},
    "test": {"problems": 2, "n": 2, "forecast_n": 0},
}
STOP = 3
"""Not an evaluation: its checkpoint is the newest, and the best one is older."""

RECIPE = Recipe.model_validate(SMALL)
(JOB,) = plan(RECIPE, 1)


def train(run: Path, stop: int | None = None, recipe: Recipe = RECIPE) -> list[str]:
    """Run the job, to its end or to a stop; what was news."""
    told: list[tuple[Any, ...]] = []

    def stopping() -> bool:
        return bool(told) and told[-1][:2] == ("training", stop)

    run_job(Work(JOB, recipe, JOB.folder(run), lambda *news: told.append(news), stopping))
    return [line[3] for line in told if len(line) > 3 and line[3]]


def folder_of(run: Path) -> JobDir:
    return JOB.folder(run)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight")
    train(run)
    return run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train(run, STOP)
    best = State(**read_json(folder_of(run).checkpoints.state(STOP))).best_step
    assert folder_of(run).checkpoints.steps() == [best, STOP]
    assert best > 0
    return run


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def test_alarms_read_what_an_earlier_try_left_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    stepped = Watch.stepped
    monkeypatch.setattr(Watch, "stepped", lambda self, line: (seen.append(line["step"]), stepped(self, line))[1])
    train(run)
    assert seen == list(range(SMALL["train"]["steps"]))


def older(run: Path) -> int:
    return folder_of(run).checkpoints.steps()[0]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def less_a_tensor(path: Path) -> None:
    name, *rest = (tensors := load_file(path))
    assert name
    save_file({key: tensors[key] for key in rest}, path, {"format": "pt"})


def holding(text: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(text)

    return damage


DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    *((name, how) for name in ("model.safetensors", "optimizer.safetensors") for how in (half, empty, less_a_tensor)),
    *((name, Path.unlink) for name in ("model.safetensors", "optimizer.safetensors", "config.json", "state.json")),
    *(("state.json", how) for how in (half, empty)),
    *(
        ("state.json", holding(text))
        for text in ("[]", "{}", f'{{"step": "{STOP}"}}', json.dumps(vars(State(step=STOP - 1))))
    ),
]
TO_THE_END = [("model.safetensors", less_a_tensor), ("optimizer.safetensors", half), ("state.json", empty)]
"""Of these, a file each: a training that goes on from the checkpoint before does not know what was damaged."""


def one_step(run: Path) -> list[str]:
    """Go on with the job for a step; what was news."""
    told: list[str] = []
    work = Work(JOB, RECIPE, JOB.folder(run), lambda *news: told.extend(news[3:]), lambda: True)
    with pytest.raises(Stopped):
        run_job(work)
    return [line for line in told if line]


def went_on(run: Path, straight: Path, step: int, *, to_the_end: bool) -> str:
    """What was said as the job went on from the checkpoint of this step; its lines are those of one that never
    stopped."""
    (said,) = train(run) if to_the_end else one_step(run)
    assert said.endswith(f"; going on from the checkpoint of step {step}")
    assert "\n" not in said
    made, wanted = essence(run), essence(straight)
    if not to_the_end:
        wanted = {path: lines[: step + 1] for path, lines in wanted.items() if path.endswith("metrics.jsonl")}
    assert {path: lines for path, lines in made.items() if path in wanted} == wanted
    return said


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(
    name: str, damage: Callable[[Path], None], run: Path, straight: Path
) -> None:
    before = older(run)
    damage(folder_of(run).checkpoints.step(STOP) / name)
    assert f"step-{STOP:06d}" in went_on(run, straight, before, to_the_end=(name, damage) in TO_THE_END)


@pytest.mark.parametrize("which", ["all", "best"])
def test_where_none_can_be_read_the_folder_to_remove_is_named(which: str, run: Path, straight: Path) -> None:
    checkpoints = folder_of(run).checkpoints
    for step in checkpoints.steps() if which == "all" else [older(run)]:
        half(checkpoints.step(step) / "model.safetensors")
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=f"remove {folder_of(run).path}, and the same command makes it anew") as error:
        train(run)
    assert "\n" not in str(error.value)
    assert sorted(run.rglob("*")) == before
    shutil.rmtree(folder_of(run).path)
    train(run)
    assert essence(run) == essence(straight)


def cut(path: Path, lines: int, torn: bytes = b"") -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]) + torn)


@pytest.mark.parametrize("torn", [b"", b'{"step": 2, "rew', b"\0\0\0\n", b'{"step": 2}\n', b'{"step": 1}\n'])
def test_lines_that_the_newest_checkpoint_counts_and_are_not_there_make_it_useless(
    torn: bytes, run: Path, straight: Path
) -> None:
    before = older(run)
    cut(folder_of(run).metrics, STOP - 1, torn)
    assert "metrics.jsonl" in went_on(run, straight, before, to_the_end=not torn)


@pytest.mark.parametrize("name", ["metrics", "validation"])
@pytest.mark.parametrize("lines", [0, 1])
@pytest.mark.parametrize("torn", [b"", b"not\n"])
def test_lines_that_no_checkpoint_can_do_without_are_asked_for(
    name: str, lines: int, torn: bytes, run: Path, straight: Path
) -> None:
    path: Path = getattr(folder_of(run), name)
    cut(path, lines, torn)
    before = contents(folder_of(run).checkpoints.path)
    with pytest.raises(UserError, match=rf"{path.name} is cut short or damaged.*; remove {folder_of(run).path}, "):
        train(run)
    assert contents(folder_of(run).checkpoints.path) == before


@pytest.mark.parametrize("damage", [("metrics.jsonl", half), ("select.jsonl", empty), ("result.json", half)])
def test_a_job_that_is_done_and_was_damaged_since_is_not_called_done(
    damage: tuple[str, Callable[[Path], None]], straight: Path, tmp_path: Path
) -> None:
    shutil.copytree(straight, tmp_path / "run")
    name, how = damage
    how(folder_of(tmp_path / "run").path / name)
    with pytest.raises(UserError, match=f"{name} .*; remove {folder_of(tmp_path / 'run').path}, and the same command"):
        study(tmp_path / "run", **SMALL)
    shutil.rmtree(folder_of(tmp_path / "run").path)
    study(tmp_path / "run", **SMALL)
    assert essence(tmp_path / "run") == essence(straight)


@pytest.mark.parametrize("torn", [b'{"step": 3}\n{"step": 4}\n', b'{"step": 3, "rew', b"\0\0\0\n"])
def test_lines_beyond_the_checkpoint_are_dropped(torn: bytes, run: Path, straight: Path) -> None:
    for path in (folder_of(run).metrics, folder_of(run).validation):
        path.write_bytes(path.read_bytes() + torn)
    assert train(run) == []
    assert essence(run) == essence(straight)


def test_lines_are_on_the_disk_before_the_checkpoint_that_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, int] = {}
    real_sync, real_rename = os.fsync, Path.rename

    def sync(handle: int) -> None:
        real_sync(handle)
        synced[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def rename(path: Path, target: Path) -> Path:
        for file in (folder_of(tmp_path).metrics, folder_of(tmp_path).validation):
            assert synced[file.stat().st_ino] == file.stat().st_size > 0
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Stopped):
        train(tmp_path, 3)


def test_a_kill_between_a_save_and_its_cleaning_leaves_nothing_behind(run: Path, straight: Path) -> None:
    checkpoints = folder_of(run).checkpoints
    shutil.copytree(checkpoints.step(STOP), checkpoints.step(1))  # a checkpoint that the newest one has replaced
    (checkpoints.path / "part-000004").mkdir()
    assert train(run, None) == []
    assert essence(run) == essence(straight)
    shutil.copytree(checkpoints.step(4), checkpoints.step(1))  # the same at the end
    folder_of(run).result.unlink()
    assert train(run) == []
    assert essence(run) == essence(straight)


# A disk that is full


FULL = OSError(28, "No space left on device")


@contextmanager
def full_for(name: str, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> Iterator[None]:
    """From the `after`-th time on, writes to files of that name come to half of their text."""
    real, seen = Path.open, [0]

    def opened(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        file = real(path, mode, *more, **options)
        if mode in ("w", "wb", "a") and path.name.startswith(name):
            seen[0] += 1
            if seen[0] > after:
                write = file.write

                def partly(text: str | bytes) -> None:
                    write(text[: len(text) // 2])
                    file.flush()
                    raise FULL

                file.write = partly
        return file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", opened)
        yield


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("metrics.jsonl", 0),
        ("metrics.jsonl", 2),
        ("select.jsonl", 0),
        ("select.jsonl", 2),
        ("state.json", 1),
        ("sampling-last.json", 0),
        ("tokens-last.jsonl", 0),
        ("records-last.jsonl", 0),
        ("result.json", 0),
    ],
)
def test_a_disk_that_is_full_stops_the_job_and_loses_nothing(
    name: str, after: int, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_for(name, monkeypatch, after), pytest.raises(UserError, match="No space left on device.*; free some"):
        train(tmp_path)
    assert not list(tmp_path.rglob("*part*"))
    train(tmp_path)
    assert essence(tmp_path) == essence(straight)


@pytest.mark.parametrize("what", ["weights", "optimizer", "rename", "folder"])
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(
    what: str, run: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(folder_of(run).checkpoints.path)

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)") if what == "optimizer" else FULL

    names = {
        "weights": "tiltlab.models.hf.HFModel.save",
        "optimizer": "tiltlab.training.optimizer.save_file",
        "rename": "pathlib.Path.rename",
        "folder": "pathlib.Path.mkdir",
    }
    with monkeypatch.context() as patched:
        patched.setattr(names[what], full)
        with pytest.raises(UserError, match="No space left on device.*free some space") as error:
            train(run)
    assert "\n" not in str(error.value)
    assert contents(folder_of(run).checkpoints.path) == before
    train(run)
    assert essence(run) == essence(straight)


def test_an_evaluation_after_a_stop_does_not_write_the_weights_again(
    tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, 2)  # due to be evaluated: saved before that
    weights = folder_of(tmp_path).checkpoints.step(2) / "model.safetensors"
    before = weights.stat().st_ino
    with full_for("metrics.jsonl", monkeypatch), pytest.raises(UserError):
        train(tmp_path)
    assert weights.stat().st_ino == before
    assert read_json(folder_of(tmp_path).checkpoints.state(2))["evaluated"] == 2
    train(tmp_path)
    assert essence(tmp_path) == essence(straight)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """What a write beyond a limit on file sizes meets is what it meets on a full disk, but for its number."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_room_is_one_line_and_exit_code_2(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(SMALL | {"arms": ["base", "task_reward"]}))
    told = ("study", str(recipe), "--out", str(run), "--jobs", "1")
    with no_file_beyond(500_000):  # the weights take more
        assert command(monkeypatch, *told) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("error: the checkpoint of step 2 could not be written")
    assert "free some space and give the same command again" in said
    assert command(monkeypatch, *told) == 0
    assert {path: lines for path, lines in essence(run).items() if "task-reward" in path} == essence(straight)
    page = (run / "report.html").read_bytes()
    capsys.readouterr()
    with no_file_beyond(20_000):
        assert command(monkeypatch, "report", str(run)) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("error: ")
    assert "could not be written" in said
    assert (run / "report.html").read_bytes() == page
    assert not list(run.rglob("*part*"))


def test_that_the_same_command_tries_again_is_said_where_it_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overflowing = {"arm": "objective", "sharpen": 1e39}  # times log p, it is beyond float32: each time
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(SMALL | {"arms": [overflowing, "base"]}))
    told = ("study", str(recipe), "--out", str(tmp_path / "run"), "--jobs", "1")
    assert command(monkeypatch, *told) == 1
    assert "1 of the study's jobs failed (above); they would again, so change the recipe" in capsys.readouterr().err

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr("tiltlab.study.training.train", fails)
    assert command(monkeypatch, *told) == 1
    assert "1 of the study's jobs failed (above); the same command tries them again" in capsys.readouterr().err


def test_a_full_disk_on_going_on_does_not_cost_the_checkpoint(
    run: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_line(folder_of(run).metrics, {"step": STOP})  # to be dropped
    before = contents(folder_of(run).checkpoints.path)
    with full_for("metrics.jsonl", monkeypatch), pytest.raises(UserError, match="metrics.jsonl could not be written"):
        train(run)
    assert contents(folder_of(run).checkpoints.path) == before
    assert train(run) == []
    assert essence(run) == essence(straight)


# Memory that ran out


def crowd(monkeypatch: pytest.MonkeyPatch, groups: int, rows: int) -> list[int]:
    """A device on which so many groups are scored with gradients, and so many rows drawn, and no more. Groups that were
    asked for."""
    asked: list[int] = []
    logprobs, draw = HFModel.logprobs, HFModel._draw

    def scored(self: HFModel, prompts: Any, rollouts: Any) -> Any:
        if torch.is_grad_enabled():
            asked.append(len(prompts))
            if len(prompts) > groups:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return logprobs(self, prompts, rollouts)

    def drawn(self: HFModel, requests: Any, *rest: Any) -> Any:
        if len(requests) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return draw(self, requests, *rest)

    monkeypatch.setattr(HFModel, "logprobs", scored)
    monkeypatch.setattr(HFModel, "_draw", drawn)
    return asked


def test_a_run_that_ran_out_of_memory_goes_on_with_less_and_a_later_try_begins_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = crowd(monkeypatch, groups=1, rows=5)
    longer = Recipe.model_validate(SMALL | {"train": SMALL["train"] | {"steps": 6}, "validation": {"every": 2}})
    news = train(tmp_path / "straight", recipe=longer)
    assert sum("memory ran out; going on with train.micro_batch_tokens" in line for line in news) >= 2
    with pytest.raises(Stopped):
        train(tmp_path / "run", 5, longer)
    asked.clear()
    assert not any("memory ran out" in line for line in train(tmp_path / "run", recipe=longer))
    assert max(asked) == 1
    assert essence(tmp_path / "run") == essence(tmp_path / "straight")
    assert read_lines(folder_of(tmp_path / "run").metrics)[0]["halved"] > 0


def test_bounds_of_a_run_are_found_anew_where_the_recipe_holds_it_otherwise(tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    other = Recipe.model_validate(SMALL | {"model": {"checkpointing": True}})
    keep_room(RECIPE, folder, Room(512, 64))
    assert room_left(RECIPE, folder) == Room(512, 64)
    assert room_left(other, folder) == Room(other.train.micro_batch_tokens)


@pytest.mark.parametrize("text", ["{}", "[]", '{"under": %s, "micro_batch_tokens": -1, "batch_tokens": null}', "{"])
def test_a_damaged_memory_file_is_one_line(text: str, tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    keep_room(RECIPE, folder, Room(512))
    under = json.dumps(read_json(folder.memory)["under"])
    folder.memory.write_text(text.replace("%s", under))
    with pytest.raises(UserError, match=r"memory\.json"):
        room_left(RECIPE, folder)


def test_a_group_that_does_not_fit_stops_the_study_with_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, groups=0, rows=100)
    with pytest.raises(UserError, match="memory ran out with one group .* may help"):
        train(tmp_path)
    assert not folder_of(tmp_path).memory.exists()
