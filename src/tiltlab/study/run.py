"""One cell of a study: one arm, one task, one seed, from the base model to graded records.

Left out on purpose: comparison. A cell knows nothing of the others; what they share (prompts, their order, seeds,
budget) they share by being functions of the same recipe.
"""

import json
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Protocol

from tiltlab.config.methods import Arm, Base, Trained
from tiltlab.config.recipe import Recipe
from tiltlab.errors import Stopped, UserError, brief, said
from tiltlab.evaluation.evaluate import Evaluated, evaluate
from tiltlab.evaluation.token_logprobs import token_lines
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec, load_reference, policy_from
from tiltlab.objective import Objective
from tiltlab.seeds import derive
from tiltlab.stats.metrics import averages
from tiltlab.storage.files import Json, append_line, make_folder, read_lines, write_json, write_text
from tiltlab.storage.folder import cannot_write, is_full
from tiltlab.storage.records import write_records
from tiltlab.storage.run_folder import CellDir
from tiltlab.study.resume import State, resume, save
from tiltlab.tasks.base import Task
from tiltlab.training.alarms import Alarm, Watch, watched
from tiltlab.training.optimizer import Optimizer
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import UNKNOWN, Problem, Split


class Tell(Protocol):
    """Told what is being done, how much of it and out of how much, again and again. `news`: a line to keep."""

    def __call__(self, doing: str, done: int, total: int, news: str = "") -> None: ...


@dataclass(frozen=True)
class Cell:
    """What to run. `key` names it to people, `folder` on disk."""

    task: Task
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        return f"{self.task.name} / {self.arm.name} / seed {self.seed}"

    def folder(self, run: Path) -> CellDir:
        return CellDir.of(run, self.task.name, self.arm.name, self.seed)


@dataclass(frozen=True)
class Work:
    """A cell with what it takes to run it. `stopping` is asked between steps whether to save and stop."""

    cell: Cell
    recipe: Recipe
    folder: CellDir
    tell: Tell
    stopping: Callable[[], bool]


def run_cell(work: Work) -> None:
    """Run a cell to its end, from wherever an earlier try left it. A cell that is done is left alone.

    A cell that cannot be finished (its gradient is no longer finite, say) leaves failed.json and returns: the others of
    the study are not to suffer for it. Raises Stopped, after saving where it is, once `work.stopping()` says so, and
    UserError for what would stop every cell alike, such as a full disk.
    """
    folder = work.folder
    if folder.result.exists():
        return
    make_folder(folder.path)
    folder.failed.unlink(missing_ok=True)
    try:
        _run(work)
    except (Stopped, UserError):
        raise
    except Exception as error:
        if is_full(error):
            raise cannot_write(folder.path, error) from error
        lasting = isinstance(error, FloatingPointError)  # a function of the recipe: another try ends the same
        why = brief(error) if lasting else said(error)
        told = {"error": why, "lasting": lasting, "traceback": traceback.format_exc()}
        write_json(folder.failed, told)


def _run(work: Work) -> None:
    base = load_base(work.recipe.model)
    objective = work.cell.arm.objective()
    if objective is None:
        _report(work, "last", base, base)
        if isinstance(work.cell.arm, Base):
            _draw_for_forecast(work, base)
        write_json(work.folder.result, {"trained": False, "reference": base.fingerprint()})
        return
    with policy_from(base, work.recipe.model, derive(work.cell.seed, "adapters")) as (policy, reference):
        _run_trained(work, objective, policy, reference)


def _run_trained(work: Work, objective: Objective, policy: HFModel, reference: HFModel) -> None:
    folder = work.folder
    optimizer = Optimizer(policy.trainable(), work.recipe.train.optimizer)
    untouched = reference.fingerprint()
    state = _resume(work, policy, optimizer)
    if not read_lines(folder.select):
        _select(work, policy, reference, 0)
    state = _train(work, objective, policy, reference, optimizer, state)
    _report(work, "last", policy, reference)
    if state.best_step != state.step:
        policy.restore(folder.checkpoints.step(state.best_step), state.best_step)
        _report(work, "best", policy, reference)
    if reference.fingerprint() != untouched:
        raise RuntimeError(f"{work.cell.key}: the reference's weights changed during training; its results are void")
    for step in folder.checkpoints.steps():
        folder.checkpoints.optimizer(step).unlink(missing_ok=True)
    stopped = _stops(work, _watch(work))
    write_json(
        folder.result,
        {"trained": True, "reference": untouched} | asdict(state) | ({"stopped": str(stopped)} if stopped else {}),
    )


def _train(
    work: Work, objective: Objective, policy: HFModel, reference: HFModel, optimizer: Optimizer, state: State
) -> State:
    """Train to the last step, or to an alarm that the recipe stops on, evaluating and saving as the recipe says."""
    recipe, config, watch = work.recipe, _train_config(work), _watch(work)
    reward = recipe.train.own_reward()
    if (_due(work, state.step) or _stops(work, watch)) and state.evaluated < state.step:  # a stop came in between
        state = _evaluated(work, policy, reference, optimizer, state, watch)
    if _stops(work, watch):
        return state
    for metrics in train(
        policy, reference, work.cell.task, objective, config, optimizer, start=state.step, reward=reward
    ):
        append_line(work.folder.metrics, metrics)
        rang = watch.stepped(metrics)
        state = replace(state, step=metrics["step"] + 1)
        work.tell(_doing(watch), state.step, config.steps, _news(rang))
        if work.stopping():
            save(work.folder, policy, optimizer, state)
            raise Stopped(f"{work.cell.key} stopped after step {state.step}")
        if _due(work, state.step) or _stops(work, watch):
            state = _evaluated(work, policy, reference, optimizer, state, watch)
        if _stops(work, watch):
            break
    return state


def _watch(work: Work) -> Watch:
    """A watch that has seen what an earlier try of the cell left: it rings the same as if there had been no stop."""
    return watched(read_lines(work.folder.metrics), read_lines(work.folder.select))


def _stops(work: Work, watch: Watch) -> Alarm | None:
    """The alarm that the recipe says to stop on, once it has rung."""
    return next((alarm for alarm in watch.rung if alarm.kind in work.recipe.train.stop_on), None)


def _news(rang: Sequence[Alarm]) -> str:
    return "; ".join(f"alarm: {alarm}" for alarm in rang)


def _doing(watch: Watch) -> str:
    return f"training (alarm: {watch.rung[-1].kind}, step {watch.rung[-1].step})" if watch.rung else "training"


def _due(work: Work, step: int) -> bool:
    return step == work.recipe.train.steps or step % work.recipe.select.every == 0


def _evaluated(
    work: Work, policy: HFModel, reference: HFModel, optimizer: Optimizer, state: State, watch: Watch
) -> State:
    """Evaluate on the select split and save; a stop while evaluating saves what training has done."""
    try:
        found = _select(work, policy, reference, state.step)
    except Stopped:
        save(work.folder, policy, optimizer, state)
        raise
    rang = watch.evaluated(found)
    if rang:
        work.tell(_doing(watch), state.step, work.recipe.train.steps, _news(rang))
    state = _judged(state, found["accuracy"])
    save(work.folder, policy, optimizer, state)
    return state


def _judged(state: State, accuracy: float) -> State:
    """The state after an evaluation. One whose accuracy is NaN (nothing could be graded) loses to any other."""
    better = state.best_step == 0 or isnan(state.best_accuracy) or accuracy > state.best_accuracy
    state = replace(state, evaluated=state.step)
    return replace(state, best_step=state.step, best_accuracy=accuracy) if better else state


def _train_config(work: Work) -> TrainConfig:
    budget, arm = work.recipe.train, work.cell.arm
    assert isinstance(arm, Trained)
    return TrainConfig(
        steps=budget.steps,
        prompts=budget.prompts,
        responses=budget.responses,
        max_tokens=budget.max_tokens,
        seed=work.cell.seed,
        fixed_length=arm.fixed_length,
        micro_batch_tokens=budget.micro_batch_tokens,
        normalize=arm.normalize,
    )


def _resume(work: Work, policy: HFModel, optimizer: Optimizer) -> State:
    """Where an earlier try left the training; told, where that is not its newest checkpoint."""
    steps = work.recipe.train.steps

    def ended(state: State, metrics: Sequence[Json], select: Sequence[Json]) -> bool:
        return state.step == steps or _stops(work, watched(metrics, select)) is not None

    state, wrong = resume(work.folder, policy, optimizer, work.recipe.select.every, ended)
    if wrong:
        work.tell("training", state.step, steps, f"{wrong}; going on from the checkpoint of step {state.step}")
    return state


def _select(work: Work, policy: HFModel, reference: HFModel, step: int) -> Json:
    """Evaluate on the select split; the figures, as they were logged."""
    records = _evaluate(work, policy, reference, "select").records
    graded = sum(record.reason not in UNKNOWN for record in records)
    found: Json = {"step": step} | averages(records) | {"graded": graded}
    append_line(work.folder.select, found)
    return found


def _report(work: Work, which: str, policy: HFModel, reference: HFModel) -> None:
    """Evaluate on the test split and keep the records; done once."""
    if not work.folder.records(which).exists():
        records, info, first_P = _evaluate(work, policy, reference, "test")
        problems = _problems(work, "test")
        prompts = [work.cell.task.render(problem) for problem in problems]
        tokens = token_lines(reference, problems, prompts, first_P)
        write_json(work.folder.sampling(which), asdict(info) | {"responses": len(records)})
        write_text(work.folder.tokens(which), "".join(json.dumps(line) + "\n" for line in tokens))
        write_records(work.folder.records(which), records)


def _draw_for_forecast(work: Work, base: HFModel) -> None:
    """More of the base's responses to the problems of the test split, kept apart from those that it is scored by."""
    records, n = work.folder.records("forecast"), work.recipe.test.forecast_n
    if n and not records.exists():
        write_records(records, _evaluate(work, base, base, "test", n=n, draw="forecast").records)


def _evaluate(
    work: Work,
    policy: HFModel,
    reference: HFModel,
    split: Split,
    *,
    n: int | None = None,
    draw: str | None = None,
) -> Evaluated:
    """n: responses a problem, as the recipe has it where left out. draw: what else than the split names the draws."""
    cell, recipe = work.cell, work.recipe
    settings = recipe.test if split == "test" else recipe.select
    problems = _problems(work, split)

    def on_progress(done: int) -> None:
        work.tell(draw or f"{split} split", done, len(problems))
        if work.stopping():
            raise Stopped(f"{cell.key} stopped while evaluating")

    return evaluate(
        policy,
        reference,
        cell.arm.sampler(),
        cell.task,
        problems,
        n=n or settings.n,
        max_tokens=recipe.train.max_tokens,
        seed=derive(cell.seed, draw or split),
        reward=recipe.train.own_reward(),
        on_progress=on_progress,
    )


def _problems(work: Work, split: Split) -> Sequence[Problem]:
    """Those of a split that the recipe has evaluated."""
    settings = work.recipe.test if split == "test" else work.recipe.select
    return work.cell.task.problems(split)[: settings.problems]


@lru_cache(maxsize=1)
def load_base(config: ModelConfig) -> HFModel:
    """The base model, loaded once a process: cells copy it, or put adapters on it for as long as they last."""
    reference: HFModel = load_reference(config, load_codec(config))
    return reference
