"""How a job's policy is evaluated: what jobs that train and jobs that do not have in common."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tiltlab.config.testing import Tested
from tiltlab.errors import Stopped
from tiltlab.evaluation.evaluate import Evaluated, evaluate
from tiltlab.evaluation.token_logprobs import token_lines
from tiltlab.models.base import LanguageModel
from tiltlab.seeds import derive, split_key
from tiltlab.stats.metrics import averages
from tiltlab.storage.files import Json, append_line, make_folder, write_json, write_text
from tiltlab.storage.records import write_records
from tiltlab.study.job import Work
from tiltlab.tasks.base import Task
from tiltlab.types import UNKNOWN, Problem, Rollout


@dataclass(frozen=True)
class Evaluation:
    """A job's policy, evaluated as it is at the moment and as the recipe says. Where nothing trains, policy and
    reference are one."""

    work: Work
    policy: LanguageModel
    reference: LanguageModel

    def validate(self, step: int) -> Json:
        """Evaluate on the validation split; the figures, as they were logged."""
        recipe, task = self.work.recipe, self.work.job.task
        settings = recipe.validation
        problems = task.problems("validation")[: settings.problems]
        limit = settings.max_tokens or recipe.train.max_tokens
        seed = derive(self.work.job.seed, split_key("validation"))
        records = self._evaluated(task, problems, settings.n, limit, seed, "validation split").records
        graded = sum(record.reason not in UNKNOWN for record in records)
        figures: Json = {"step": step} | averages(records, truncated=recipe.train.truncated == "keep")
        figures |= {"graded": graded}
        self.work.write(append_line, self.work.folder.validation, figures)
        return figures

    def report(self, which: str) -> None:
        """Evaluate on the test sets and keep the records; done once."""
        for test in self.work.tests:
            folder = self.work.tested(test)
            if not self.work.world.done_by_first(folder.records(which).exists):
                self.work.write(make_folder, folder.path)
                records, info, first_P = self._tested(test, test.n)
                taken = asdict(info) | {"responses": len(records), "ranks": self.work.world.size}
                self.work.write(write_json, folder.sampling(which), taken)
                self.work.write(self._write_tokens, folder.tokens(which), test, first_P)
                self.work.write(write_records, folder.records(which), records)

    def draw_for_forecast(self) -> None:
        """More responses to the problems of the test sets, kept apart from those that the policy is scored by."""
        for test in self.work.tests:
            path = self.work.tested(test).records("forecast")
            if test.forecast_n and not self.work.world.done_by_first(path.exists):
                self.work.write(write_records, path, self._tested(test, test.forecast_n, "forecast").records)

    def _write_tokens(self, path: Path, test: Tested, first_P: Sequence[Rollout]) -> None:
        problems = self._problems(test)
        prompts = [test.task.render(problem) for problem in problems]
        lines = token_lines(self.reference, problems, prompts, first_P)
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def _tested(self, test: Tested, n: int, draw: str = "test") -> Evaluated:
        """n: responses a problem. draw: what for; the seed depends on it."""
        seed = derive(self.work.job.seed, draw, *([] if test.is_own else [test.name]))
        doing = draw if draw != "test" else "test split" if test.is_own else test.name
        return self._evaluated(test.task, self._problems(test), n, test.max_tokens, seed, doing)

    def _evaluated(
        self, task: Task, problems: Sequence[Problem], n: int, max_tokens: int, seed: int, doing: str
    ) -> Evaluated:
        """Raises Stopped, with nothing kept, between two batches of problems."""

        def on_progress(done: int) -> None:
            self.work.tell(doing, done, len(problems))
            if self.work.stopping():
                raise Stopped(f"{self.work.job.key} stopped while evaluating")

        return evaluate(
            self.policy,
            self.reference,
            self.work.job.arm.sampler(),
            task,
            problems,
            n=n,
            max_tokens=max_tokens,
            seed=seed,
            reward=self.work.recipe.train.own_reward(),
            on_progress=on_progress,
            world=self.work.world,
        )

    def _problems(self, test: Tested) -> Sequence[Problem]:
        """Those of a test set that the recipe has evaluated."""
        return test.task.problems("test")[: test.problems]
