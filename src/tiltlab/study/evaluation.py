"""How a job's policy is evaluated: what jobs that train and jobs that do not have in common."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tiltlab.errors import Stopped
from tiltlab.evaluation.evaluate import Evaluated, evaluate
from tiltlab.evaluation.token_logprobs import token_lines
from tiltlab.models.base import LanguageModel
from tiltlab.seeds import derive, split_key
from tiltlab.stats.metrics import averages
from tiltlab.storage.files import Json, append_line, write_json, write_text
from tiltlab.storage.records import write_records
from tiltlab.study.job import Work
from tiltlab.types import UNKNOWN, Problem, Split


@dataclass(frozen=True)
class Evaluation:
    """A job's policy, evaluated as it is at the moment and as the recipe says. Where nothing trains, policy and
    reference are one."""

    work: Work
    policy: LanguageModel
    reference: LanguageModel

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
