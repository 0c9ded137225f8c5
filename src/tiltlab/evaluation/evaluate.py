"""Model x sampler x task -> records.

Left out on purpose: figures. Records are kept whole, and every figure is computed from them by metrics.py.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch

from tiltlab.models.base import LanguageModel
from tiltlab.rewards.functions import Reward
from tiltlab.samplers.base import Info, Sampler, together
from tiltlab.tasks.base import Task, grade_all
from tiltlab.types import Grade, Problem, Prompt, Record, Rollout

CHUNK = 32
"""Problems between two reports of progress."""


class Evaluated(NamedTuple):
    """What an evaluation came to.

    records: problem by problem, in order, n each.
    info: what the sampler says of all its responses together.
    first_P: the first response to each problem, token by token as it was drawn; all of them would not fit in memory.
    """

    records: list[Record]
    info: Info
    first_P: list[Rollout]


def evaluate(
    model: LanguageModel,
    reference: LanguageModel,
    sampler: Sampler,
    task: Task,
    problems: Sequence[Problem],
    *,
    n: int,
    max_tokens: int,
    seed: int,
    reward: Reward | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    on_rollouts: Callable[[Sequence[Problem], Sequence[Sequence[Rollout]]], None] = lambda *_: None,
) -> Evaluated:
    """Draw and grade responses to each problem, and score them under the model and the reference.

    model: that the sampler draws from.
    reference: the base; may be the model itself.
    n, max_tokens: responses to each problem, and the most tokens of one.
    seed: of the draws.
    reward: of the user's own, in place of the task's.
    on_progress: told how many problems are done.
    on_rollouts: given some problems and the responses to each, as they were drawn.

    Both models score the responses that the sampler gave, whatever distribution it drew them from, by the same code:
    where the weights agree, so do the two log-probabilities (nats, at temperature 1).

    Raises UserError for a prompt that the model has no room for, and for a reward that cannot be called.
    """
    records: list[Record] = []
    infos: list[Info] = []
    first_P: list[Rollout] = []
    for start in range(0, len(problems), CHUNK):
        some = problems[start : start + CHUNK]
        prompts = [task.render(problem) for problem in some]
        graded = partial(_graded, task, some, reward)
        samples = sampler(model, prompts, n=n, max_tokens=max_tokens, seed=seed, grade_fn=graded)
        rollouts = samples.rollouts
        grades = grade_all(task, some, rollouts, reward)
        ref_logp, logp = _log_probabilities(model, reference, prompts, rollouts)
        records += [
            _record(task, some[p], g, rollout, grades[p][g], logp[p][g], ref_logp[p][g])
            for p, group in enumerate(rollouts)
            for g, rollout in enumerate(group)
        ]
        on_rollouts(some, rollouts)
        infos.append(samples.info)
        first_P += [group[0] for group in rollouts]
        on_progress(min(start + CHUNK, len(problems)))
    return Evaluated(records, together(infos), first_P)


@torch.no_grad()
def _log_probabilities(
    model: LanguageModel, reference: LanguageModel, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]]
) -> tuple[list[list[float]], list[list[float]]]:
    """Of responses, `[P][G]`: under the reference, and under the model."""
    ref_logp = reference.logprobs(prompts, rollouts).total_PG.tolist()
    return ref_logp, ref_logp if model is reference else model.logprobs(prompts, rollouts).total_PG.tolist()


def _record(
    task: Task, problem: Problem, sample: int, rollout: Rollout, grade: Grade, logp: float, ref_logp: float
) -> Record:
    return Record(
        task=task.name,
        problem=problem.id,
        sample=sample,
        text=rollout.text,
        answer=grade.answer,
        reward=grade.reward,
        reason=grade.reason,
        tokens=len(rollout.tokens),
        complete=rollout.complete,
        logp=logp,
        ref_logp=ref_logp,
    )


def _graded(
    task: Task,
    problems: Sequence[Problem],
    reward: Reward | None,
    numbers: Sequence[int],
    rollouts: Sequence[Rollout],
) -> list[Grade]:
    """A sampler's GradeFn: the responses are to the problems with these numbers."""
    grades = grade_all(task, [problems[i] for i in numbers], [[rollout] for rollout in rollouts], reward)
    return [grade for (grade,) in grades]
