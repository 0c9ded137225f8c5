"""Model x sampler x task -> records.

Left out on purpose: figures. Records are kept whole, and every figure is computed from them by metrics.py.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from tiltlab.models.base import LanguageModel
from tiltlab.rewards.functions import Reward
from tiltlab.samplers.base import Info, Sampler, together
from tiltlab.tasks.base import Task, grade_all
from tiltlab.types import Grade, Problem, Prompt, Record, Rollout

OnFirst = Callable[[Sequence[Problem], Sequence[Prompt], Sequence[Rollout]], None]

CHUNK = 32
"""Problems between two reports of progress."""


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
    on_first: OnFirst = lambda *_: None,
) -> tuple[list[Record], Info]:
    """n graded responses to each problem, with their log-probabilities under the model and the reference; and what the
    sampler says of itself.

    Both score the responses that the sampler gave, whatever law it drew them from, by the same code: where the weights
    agree, so do the two. `on_first` is given the first response to each problem, as it was drawn; `on_progress` is told
    how many problems are done. Records come problem by problem, in order.
    """
    records: list[Record] = []
    infos: list[Info] = []
    for start in range(0, len(problems), CHUNK):
        some = problems[start : start + CHUNK]
        prompts = [task.render(problem) for problem in some]
        samples = sampler(
            model, prompts, n=n, max_tokens=max_tokens, seed=seed, judge=partial(_judged, task, some, reward)
        )
        rollouts = samples.rollouts
        infos.append(samples.info)
        on_first(some, prompts, [group[0] for group in rollouts])
        grades = grade_all(task, some, rollouts, reward)
        with torch.no_grad():
            ref_logp = reference.logprobs(prompts, rollouts).total_PG.tolist()
            logp = ref_logp if model is reference else model.logprobs(prompts, rollouts).total_PG.tolist()
        records += [
            Record(
                task=task.name,
                problem=some[p].id,
                sample=g,
                text=rollout.text,
                answer=grades[p][g].answer,
                reward=grades[p][g].reward,
                reason=grades[p][g].reason,
                tokens=len(rollout.tokens),
                complete=rollout.complete,
                logp=logp[p][g],
                ref_logp=ref_logp[p][g],
            )
            for p, group in enumerate(rollouts)
            for g, rollout in enumerate(group)
        ]
        on_progress(min(start + CHUNK, len(problems)))
    return records, together(infos)


def _judged(
    task: Task,
    problems: Sequence[Problem],
    reward: Reward | None,
    numbers: Sequence[int],
    rollouts: Sequence[Rollout],
) -> list[Grade]:
    """A sampler's Judge: the responses are to the problems with these numbers."""
    grades = grade_all(task, [problems[i] for i in numbers], [[rollout] for rollout in rollouts], reward)
    return [grade for (grade,) in grades]
