"""One job of a study: one arm, one task, one seed, from the base model to graded records.

`run_job` is what the others call. `_Training` is the way of a job that trains, from where an earlier try left it to
its result; `_Evaluation` is what jobs that train and jobs that do not have in common.

Left out on purpose: comparison. A job knows nothing of the others; what they share (prompts, their order, seeds,
budget) they share by being functions of the same recipe.
"""

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import isnan
from pathlib import Path
from typing import Protocol

from tiltlab.config.methods import Arm, Base
from tiltlab.config.recipe import Recipe
from tiltlab.config.trained import Trained
from tiltlab.errors import Stopped, UserError, brief, said
from tiltlab.evaluation.evaluate import Evaluated, evaluate
from tiltlab.evaluation.token_logprobs import token_lines
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec, load_reference, policy_from
from tiltlab.objective import Objective
from tiltlab.seeds import derive, split_key
from tiltlab.stats.metrics import averages
from tiltlab.storage.files import Json, append_line, make_folder, read_lines, write_json, write_text
from tiltlab.storage.folder import cannot_write, is_full
from tiltlab.storage.records import write_records
from tiltlab.storage.run_folder import JobDir
from tiltlab.study.resume import State, resume, save
from tiltlab.tasks.base import Task
from tiltlab.training.advantage import UnsuitableReward
from tiltlab.training.alarms import Alarm, Watch
from tiltlab.training.optimizer import Optimizer
from tiltlab.training.step_metrics import Metrics
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import UNKNOWN, Problem, Split


class Tell(Protocol):
    """Told what is being done, again and again."""

    def __call__(self, doing: str, done: int, total: int, news: str = "") -> None:
        """Take a report: what is being done, how much of it, out of how much, and perhaps a line to keep."""
        ...


@dataclass(frozen=True)
class Job:
    """What to run.

    task: whose problems.
    arm: how they are answered.
    seed: of all randomness.
    """

    task: Task
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        """What people call it."""
        return f"{self.task.name} / {self.arm.name} / seed {self.seed}"

    def folder(self, run: Path) -> JobDir:
        """Its files in a run folder."""
        return JobDir.of(run, self.task.name, self.arm.name, self.seed)


@dataclass(frozen=True)
class Work:
    """A job with what it takes to run it.

    job: what to run.
    recipe: of the study, with the device to run on.
    folder: its files.
    tell: told what is being done.
    stopping: asked between steps whether to save and stop.
    """

    job: Job
    recipe: Recipe
    folder: JobDir
    tell: Tell
    stopping: Callable[[], bool]


def run_job(work: Work) -> None:
    """Run a job to its end, from wherever an earlier try left it. A job that is done is left alone.

    A job that cannot be finished (its gradient is no longer finite, say) leaves failed.json and returns: the others of
    the study are not to suffer for it. Raises Stopped, after saving where it is, once `work.stopping()` says so, and
    UserError for what would stop every job alike, such as a full disk.
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
        lasting = isinstance(error, FloatingPointError | UnsuitableReward)  # by the recipe: another try ends the same
        why = brief(error) if lasting else said(error)
        told = {"error": why, "lasting": lasting, "traceback": traceback.format_exc()}
        write_json(folder.failed, told)


def _run(work: Work) -> None:
    base, objective = load_base(work.recipe.model), work.job.arm.objective()
    if objective is None:
        evaluation = _Evaluation(work, base, base)
        evaluation.report("last")
        if isinstance(work.job.arm, Base):
            evaluation.draw_for_forecast()
        write_json(work.folder.result, {"trained": False, "reference": base.fingerprint()})
        return
    with policy_from(base, work.recipe.model, derive(work.job.seed, "adapters")) as (policy, reference):
        _Training(work, objective, policy, reference).run()


class _Training:
    """A job that trains.

    Between two calls the policy and the optimiser stand as they were after `state.step` steps, metrics.jsonl and
    select.jsonl hold that many steps and their evaluations, and the watch has seen every one of those lines.
    """

    def __init__(self, work: Work, objective: Objective, policy: HFModel, reference: HFModel) -> None:
        self.work, self.folder, self.recipe = work, work.folder, work.recipe
        self.objective, self.policy, self.reference = objective, policy, reference
        self.optimizer = Optimizer(policy.trainable(), work.recipe.train.optimizer)
        self.evaluation = _Evaluation(work, policy, reference)
        self.state, self.watch = State(), Watch()

    def run(self) -> None:
        untouched = self.reference.fingerprint()
        self._resume()
        self._train()
        self._report()
        if self.reference.fingerprint() != untouched:
            raise RuntimeError(
                f"{self.work.job.key}: the reference's weights changed during training; its results are void"
            )
        self._close(untouched)

    def _resume(self) -> None:
        """Go to where an earlier try left the training; told, where that is not its newest checkpoint."""

        def ended(state: State, watch: Watch) -> bool:
            return state.step == self.recipe.train.steps or self._fatal(watch) is not None

        resumed = resume(self.folder, self.policy, self.optimizer, self.recipe.validation.every, ended)
        self.state, self.watch = resumed.state, resumed.watch
        if resumed.wrong:
            self._tell("training", f"{resumed.wrong}; going on from the checkpoint of step {self.state.step}")
        if not read_lines(self.folder.validation):
            self.watch.evaluated(self.evaluation.validate(0))

    def _train(self) -> None:
        """Train to the last step, or to an alarm that the recipe stops on, evaluating and saving as the recipe says."""
        if self._due() and self.state.evaluated < self.state.step:  # a stop came in between
            self._evaluate()
        if self._fatal(self.watch):
            return
        for metrics in self._steps():
            append_line(self.folder.metrics, metrics)
            fired = self.watch.stepped(metrics)
            self.state = replace(self.state, step=metrics["step"] + 1)
            self._tell(self._doing(), _news(fired))
            if self.work.stopping():
                self._save()
                raise Stopped(f"{self.work.job.key} stopped after step {self.state.step}")
            if self._due():
                self._evaluate()
            if self._fatal(self.watch):
                break

    def _steps(self) -> Iterator[Metrics]:
        task, reward = self.work.job.task, self.recipe.train.own_reward()
        return train(
            self.policy,
            self.reference,
            task,
            self.objective,
            _train_config(self.work),
            self.optimizer,
            start=self.state.step,
            reward=reward,
        )

    def _evaluate(self) -> None:
        """Evaluate on the validation split and save; a stop while evaluating saves what training has done."""
        try:
            figures = self.evaluation.validate(self.state.step)
        except Stopped:
            self._save()
            raise
        fired = self.watch.evaluated(figures)
        if fired:
            self._tell(self._doing(), _news(fired))
        self.state = _with_best(self.state, figures["accuracy"])
        self._save()

    def _save(self) -> None:
        save(self.folder, self.policy, self.optimizer, self.state)

    def _report(self) -> None:
        """Records of the last policy and, where it is another one, of the best; the policy is left as the latter."""
        self.evaluation.report("last")
        best = self.state.best_step
        if best != self.state.step:
            self.policy.restore(self.folder.checkpoints.step(best), best)
            self.evaluation.report("best")

    def _close(self, reference: str) -> None:
        """Write result.json, last: from then on the job is done."""
        for step in self.folder.checkpoints.steps():
            self.folder.checkpoints.optimizer(step).unlink(missing_ok=True)
        fatal = self._fatal(self.watch)
        about = {"trained": True, "reference": reference} | asdict(self.state)
        write_json(self.folder.result, about | ({"stopped": str(fatal)} if fatal else {}))

    def _due(self) -> bool:
        """Whether an evaluation belongs after the step that was done last."""
        step = self.state.step
        planned = step == self.recipe.train.steps or step % self.recipe.validation.every == 0
        return planned or self._fatal(self.watch) is not None

    def _fatal(self, watch: Watch) -> Alarm | None:
        """The alarm that the recipe says to stop on, once it has fired."""
        return next((alarm for alarm in watch.fired if alarm.kind in self.recipe.train.stop_on), None)

    def _doing(self) -> str:
        fired = self.watch.fired
        return f"training (alarm: {fired[-1].kind}, step {fired[-1].step})" if fired else "training"

    def _tell(self, doing: str, news: str) -> None:
        self.work.tell(doing, self.state.step, self.recipe.train.steps, news)


def _news(fired: Sequence[Alarm]) -> str:
    return "; ".join(f"alarm: {alarm}" for alarm in fired)


def _with_best(state: State, accuracy: float) -> State:
    """The state after an evaluation. One whose accuracy is NaN (nothing could be graded) loses to any other."""
    better = state.best_step == 0 or isnan(state.best_accuracy) or accuracy > state.best_accuracy
    state = replace(state, evaluated=state.step)
    return replace(state, best_step=state.step, best_accuracy=accuracy) if better else state


def _train_config(work: Work) -> TrainConfig:
    budget, arm = work.recipe.train, work.job.arm
    assert isinstance(arm, Trained)
    return TrainConfig(
        steps=budget.steps,
        prompts=budget.prompts,
        responses=budget.responses,
        max_tokens=budget.max_tokens,
        seed=work.job.seed,
        fixed_length=arm.fixed_length,
        micro_batch_tokens=budget.micro_batch_tokens,
        signal=arm.signal,
        advantage=arm.estimator,
    )


@dataclass(frozen=True)
class _Evaluation:
    """A job's policy, evaluated as it is at the moment and as the recipe says. Where nothing trains, policy and
    reference are one."""

    work: Work
    policy: HFModel
    reference: HFModel

    def validate(self, step: int) -> Json:
        """Evaluate on the validation split; the figures, as they were logged."""
        records = self._evaluated("validation").records
        graded = sum(record.reason not in UNKNOWN for record in records)
        figures: Json = {"step": step} | averages(records) | {"graded": graded}
        append_line(self.work.folder.validation, figures)
        return figures

    def report(self, which: str) -> None:
        """Evaluate on the test split and keep the records; done once."""
        folder = self.work.folder
        if not folder.records(which).exists():
            records, info, first_P = self._evaluated("test")
            problems = self._problems("test")
            prompts = [self.work.job.task.render(problem) for problem in problems]
            tokens = token_lines(self.reference, problems, prompts, first_P)
            write_json(folder.sampling(which), asdict(info) | {"responses": len(records)})
            write_text(folder.tokens(which), "".join(json.dumps(line) + "\n" for line in tokens))
            write_records(folder.records(which), records)

    def draw_for_forecast(self) -> None:
        """More responses to the problems of the test split, kept apart from those that the policy is scored by."""
        path, n = self.work.folder.records("forecast"), self.work.recipe.test.forecast_n
        if n and not path.exists():
            write_records(path, self._evaluated("test", n=n, draw="forecast").records)

    def _evaluated(self, split: Split, *, n: int | None = None, draw: str | None = None) -> Evaluated:
        """n: responses a problem, as the recipe has it where left out. draw: what else than the split names the draws.

        Raises Stopped, with nothing kept, between two batches of problems.
        """
        job, recipe = self.work.job, self.work.recipe
        settings = recipe.test if split == "test" else recipe.validation
        problems = self._problems(split)

        def on_progress(done: int) -> None:
            self.work.tell(draw or f"{split} split", done, len(problems))
            if self.work.stopping():
                raise Stopped(f"{job.key} stopped while evaluating")

        return evaluate(
            self.policy,
            self.reference,
            job.arm.sampler(),
            job.task,
            problems,
            n=n or settings.n,
            max_tokens=recipe.train.max_tokens,
            seed=derive(job.seed, draw or split_key(split)),
            reward=recipe.train.own_reward(),
            on_progress=on_progress,
        )

    def _problems(self, split: Split) -> Sequence[Problem]:
        """Those of a split that the recipe has evaluated."""
        settings = self.work.recipe.test if split == "test" else self.work.recipe.validation
        return self.work.job.task.problems(split)[: settings.problems]


@lru_cache(maxsize=1)
def load_base(config: ModelConfig) -> HFModel:
    """The base model, loaded once a process: jobs copy it, or put adapters on it for as long as they last."""
    reference: HFModel = load_reference(config, load_codec(config))
    return reference
