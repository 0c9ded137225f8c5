"""The way of a job that trains, from where an earlier try left it to its result."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from math import isnan

from tiltlab.config.trained import Trained
from tiltlab.errors import Stopped
from tiltlab.models.base import Policy
from tiltlab.models.hf import HFModel
from tiltlab.models.sharded import shards_of
from tiltlab.objective import Objective
from tiltlab.plan.rates import key_of, measured, remember, way_of
from tiltlab.storage.files import append_line, read_lines, write_json
from tiltlab.study.evaluation import Evaluation
from tiltlab.study.held import hold, keep_room, room_left
from tiltlab.study.job import Work
from tiltlab.study.resume import State, resume, save
from tiltlab.system.devices import device_name
from tiltlab.training.alarms import Alarm, Watch
from tiltlab.training.optimizer import Optimizer
from tiltlab.training.room import Room
from tiltlab.training.step_metrics import Metrics
from tiltlab.training.train import TrainConfig, train


class Training:
    """A job that trains.

    Between two calls the policy and the optimiser stand as they were after `state.step` steps, metrics.jsonl and
    select.jsonl hold that many steps and their evaluations, and the watch has seen every one of those lines.
    """

    def __init__(self, work: Work, objective: Objective, policy: Policy, reference: HFModel) -> None:
        self.work, self.folder, self.recipe = work, work.folder, work.recipe
        self.objective, self.policy, self.reference = objective, policy, reference
        self.optimizer = Optimizer(policy.trainable(), work.recipe.train.optimizer, shards_of(policy))
        self.room = room_left(work.recipe, work.folder)
        self.room.keep = self._ran_out
        hold(work.recipe, policy, reference, self.room)
        self.evaluation = Evaluation(work, policy, reference)
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
        self.work.write(self._close, untouched)

    def _resume(self) -> None:
        """Go to where an earlier try left the training; told, where that is not its newest checkpoint."""

        def ended(state: State, watch: Watch) -> bool:
            return state.step == self.recipe.train.steps or self._fatal(watch) is not None

        every = self.recipe.validation.every
        resumed = resume(self.folder, self.policy, self.optimizer, every, ended, self.work.world)
        self.state, self.watch = resumed.state, resumed.watch
        if resumed.wrong:
            self._tell("training", f"{resumed.wrong}; going on from the checkpoint of step {self.state.step}")
        if not self.work.world.done_by_first(lambda: bool(read_lines(self.folder.validation))):
            self.watch.evaluated(self.evaluation.validate(0))

    def _train(self) -> None:
        """Train to the last step, or to an alarm that the recipe stops on, evaluating and saving as the recipe says."""
        if self._due() and self.state.evaluated < self.state.step:  # a stop came in between
            self._evaluate()
        if self._fatal(self.watch):
            return
        for metrics in self._steps():
            self.work.write(append_line, self.folder.metrics, metrics | {"ranks": self.work.world.size})
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
            room=self.room,
            world=self.work.world,
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
        self.state = with_best(self.state, figures["accuracy"])
        self._save()

    def _save(self) -> None:
        save(self.folder, self.policy, self.optimizer, self.state, self.work.world)

    def _report(self) -> None:
        """Records of the last policy and, where it is another one, of the best; the policy is left as the latter."""
        self.evaluation.report("last")
        best = self.state.best_step
        if best != self.state.step:
            self.policy.restore(self.folder.checkpoints.step(best), best)
            self.evaluation.report("best")

    def _close(self, reference: str) -> None:
        """Write result.json, last: from then on the job is done."""
        self.folder.checkpoints.forget_optimizers()
        fatal = self._fatal(self.watch)
        about = {"trained": True, "reference": reference} | asdict(self.state)
        write_json(self.folder.result, about | ({"stopped": str(fatal)} if fatal else {}))
        self._remember_rates()

    def _remember_rates(self) -> None:
        """For the plans of later studies; of the steps that as many ranks made."""
        ranks = self.work.world.size
        model, module = self.recipe.model, self.reference.module
        key = key_of(module.config.get_text_config(), module.get_input_embeddings().weight.dtype, model.lora)
        way = way_of(self.recipe.engine.name, checkpointing=self.reference.checkpointing, ranks=ranks)
        steps = [line for line in read_lines(self.folder.metrics) if line.get("ranks", 1) == ranks]
        found = measured(key, device_name(str(self.reference.device)), way, steps)
        if found:
            remember(found)

    def _due(self) -> bool:
        """Whether an evaluation belongs after the step that was done last."""
        step = self.state.step
        planned = step == self.recipe.train.steps or step % self.recipe.validation.every == 0
        return planned or self._fatal(self.watch) is not None

    def _fatal(self, watch: Watch) -> Alarm | None:
        """The alarm that the recipe says to stop on, once it has fired."""
        return next((alarm for alarm in watch.fired if alarm.kind in self.recipe.train.stop_on), None)

    def _ran_out(self, room: Room) -> None:
        self._tell(self._doing(), keep_room(self.recipe, self.folder, room))

    def _doing(self) -> str:
        fired = self.watch.fired
        return f"training (alarm: {fired[-1].kind}, step {fired[-1].step})" if fired else "training"

    def _tell(self, doing: str, news: str) -> None:
        self.work.tell(doing, self.state.step, self.recipe.train.steps, news)


def _news(fired: Sequence[Alarm]) -> str:
    return "; ".join(f"alarm: {alarm}" for alarm in fired)


def with_best(state: State, accuracy: float) -> State:
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
        truncated=budget.truncated,
        signal=arm.signal,
        advantage=arm.estimator,
        correction=work.recipe.engine.corrects,
    )
