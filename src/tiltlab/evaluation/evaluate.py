"""Model x sampler x task -> records.

Left out on purpose: figures. Records are kept whole, and every figure is computed from them by metrics.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch

from tiltlab.models.base import LanguageModel
from tiltlab.rewards.functions import Reward
from tiltlab.samplers.base import Info, Sampler, together
from tiltlab.system.world import ALONE, World
from tiltlab.tasks.base import Task, grade_all
from tiltlab.training.dealing import deal_prompts, in_order
from tiltlab.types import Grade, Problem, Prompt, Record, Rollout

CHUNK = 32
"""Problems of a rank, about, between two reports of progress."""


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
    world: World = ALONE,
) -> Evaluated:
    """Draw and grade responses to each problem, and score them under the model and the reference.

    model: that the sampler draws from.
    reference: the base; may be the model itself.
    n, max_tokens: responses to each problem, and the most tokens of one.
    seed: of the draws.
    reward: of the user's own, in place of the task's.
    on_progress: told how many problems are done, by all ranks together.
    on_rollouts: given some problems and the responses to each, as they were drawn.
    world: the ranks that call this with the same arguments. Each does a share of the problems; all get the whole, and
        are told of progress the same number of times.

    Both models score the responses that the sampler gave, whatever distribution it drew them from, by the same code:
    where the weights agree, so do the two log-probabilities (nats, at temperature 1).

    Raises UserError for a prompt that the model has no room for, and for a reward that cannot be called.
    """
    lots: list[Evaluated] = []
    at_once = CHUNK * world.size
    for start in range(0, len(problems), at_once):
        some = problems[start : start + at_once]
        prompts = [task.render(problem) for problem in some]
        shares = deal_prompts(model, prompts, max_tokens, world)
        mine = [(some[i], prompts[i]) for i in shares[world.rank]]
        lot = _lot(model, reference, sampler, task, mine, n, max_tokens, seed, reward, on_rollouts)
        lots.append(one_lot(world.gather(lot), shares, n))
        on_progress(min(start + at_once, len(problems)))
    return Evaluated(
        [record for lot in lots for record in lot.records],
        together([lot.info for lot in lots]),
        [first for lot in lots for first in lot.first_P],
    )


def one_lot(lots: Sequence[Evaluated], shares: Sequence[Sequence[int]], n: int) -> Evaluated:
    """What ranks have made of their shares of some problems, problem by problem.

    lots: of each rank; seconds are those of the slowest.
    shares: of each rank, the numbers of its problems.
    n: responses to a problem.
    """
    if len(lots) == 1:
        return lots[0]
    busy = [(share, lot) for share, lot in zip(shares, lots, strict=True) if share]
    shares, infos = [share for share, _ in busy], [lot.info for _, lot in busy]
    costs = together(infos)
    by_problem = {
        name: in_order(shares, [info.notes[name] for info in infos])
        for name in costs.notes
        if all(len(info.notes[name]) == len(share) for share, info in zip(shares, infos, strict=True))  # not one a call
    }
    info = replace(costs, seconds=max(one.seconds for one in infos), notes={**costs.notes, **by_problem})
    groups = in_order(shares, [[lot.records[n * p : n * p + n] for p in range(len(share))] for share, lot in busy])
    records = [record for group in groups for record in group]
    return Evaluated(records, info, in_order(shares, [lot.first_P for _, lot in busy]))


def _lot(
    model: LanguageModel,
    reference: LanguageModel,
    sampler: Sampler,
    task: Task,
    asked: Sequence[tuple[Problem, Prompt]],
    n: int,
    max_tokens: int,
    seed: int,
    reward: Reward | None,
    on_rollouts: Callable[[Sequence[Problem], Sequence[Sequence[Rollout]]], None],
) -> Evaluated:
    """What some problems come to, which may be none; each with its prompt."""
    if not asked:
        return Evaluated([], Info(0), [])
    problems, prompts = [problem for problem, _ in asked], [prompt for _, prompt in asked]
    graded = partial(_graded, task, problems, reward)
    samples = sampler(model, prompts, n=n, max_tokens=max_tokens, seed=seed, grade_fn=graded)
    rollouts = samples.rollouts
    grades = grade_all(task, problems, rollouts, reward)
    ref_logp, logp = _log_probabilities(model, reference, prompts, rollouts)
    records = [
        _record(task, problems[p], g, rollout, grades[p][g], logp[p][g], ref_logp[p][g])
        for p, group in enumerate(rollouts)
        for g, rollout in enumerate(group)
    ]
    on_rollouts(problems, rollouts)
    return Evaluated(records, samples.info, [group[0] for group in rollouts])


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
