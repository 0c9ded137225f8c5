"""Rewards of the user's own, called as TRL's trainers call them.

    fn(prompts=[...], completions=[...], **columns) -> list[float | None]

One entry a response; `columns` holds one list for each column of the data (and id, question, answer); None says
"could not be graded". One difference: for conversational data TRL hands over completions as lists of messages; ours
are always plain strings, also where the prompt is chat messages. The function runs in worker processes that are killed
at a deadline: one that hangs, crashes or returns garbage costs the responses that it did so for their reward, and
nothing else.

Left out on purpose: security. The function is the user's code, and is trusted as such.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from tiltlab.errors import UserError
from tiltlab.rewards.worker import Arguments, Value, load_error, values_of
from tiltlab.system.guarded_calls import Failed, call_all, call_once
from tiltlab.types import Grade, Problem, Prompt, Rollout

TOGETHER = 32
"""Responses in one call, or one whole group where that is more: a function may compare the responses to a prompt."""

DEADLINE = 10.0
"""Seconds for one call."""

ALONE = 0.1
"""A response of a call that failed is called alone, to find the guilty one; it has this share of the deadline, yet at
least a second."""

LOADING = 60.0
"""Seconds for importing the function's module."""

MEMORY = 16 * 2**30
"""Bytes of address space that a function may take in its worker (on Linux)."""

_log = logging.getLogger(__name__)
_told: set[tuple["Reward", str]] = set()


@dataclass(frozen=True)
class Reward:
    """A weighted sum of functions.

    weights: each function as ("package.module:function", its weight).
    deadline: seconds for one call.
    path: folders where they are sought first, before those of sys.path.
    """

    weights: tuple[tuple[str, float], ...]
    deadline: float = DEADLINE
    path: tuple[str, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of the functions, each once."""
        return tuple(dict.fromkeys(path.partition(":")[0] for path, _ in self.weights))


def load_reward(reward: str | Mapping[str, float], deadline: float = DEADLINE) -> Reward:
    """The function named by "package.module:function", or several with their weights.

    reward: one name, or weights by name; modules are sought in the current directory first.
    deadline: seconds for one call.

    Raises UserError where there is none, or where its module raises anything, hangs, or kills its process.
    """
    weights = {reward: 1.0} if isinstance(reward, str) else reward
    here = str(Path.cwd())  # the `tiltlab` command, unlike `python -m`, does not have it in its sys.path
    for path in weights:
        _require_loadable(path, here)
    return Reward(tuple(weights.items()), deadline, (here,))


def try_reward(
    reward: Reward, prompts_N: Sequence[Prompt], problems_N: Sequence[Problem], texts_N: Sequence[str]
) -> None:
    """Call every function once with all of these responses.

    prompts_N, problems_N, texts_N: prompt, problem and text of each response, as many of each.

    Raises UserError for the first thing that goes wrong.
    """
    arguments = _arguments(prompts_N, problems_N, texts_N)
    for path, _ in reward.weights:
        (answer,) = _call_all([(path, arguments)], reward, reward.deadline)
        for value in [answer] if isinstance(answer, Failed) else answer:
            if isinstance(value, Failed):
                longer = "; if it needs longer, raise train.reward_deadline" if value.reason == "timeout" else ""
                raise UserError(f"reward {_name(path)} {value.said}{longer}")


def reward_all(
    reward: Reward, prompts_N: Sequence[Prompt], problems_N: Sequence[Problem], texts_N: Sequence[str]
) -> list[float | Failed]:
    """The reward of every response: NaN where a function returned None, `Failed` where one failed on it.

    prompts_N, problems_N, texts_N: prompt, problem and text of each response, as many of each. The responses to a
        problem stand side by side, and are handed over together.
    """
    arguments = _arguments(prompts_N, problems_N, texts_N)
    calls = _calls([problem.id for problem in problems_N])
    parts = [_called(path, arguments, calls, reward) for path, _ in reward.weights]
    weights = [weight for _, weight in reward.weights]
    return [_summed(weights, values) for values in zip(*parts, strict=True)]


def rewarded(
    reward: Reward,
    prompts_P: Sequence[Prompt],
    problems_P: Sequence[Problem],
    rollouts_PG: Sequence[Sequence[Rollout]],
    grades_PG: Sequence[Sequence[Grade]],
) -> list[list[Grade]]:
    """The grades with their rewards replaced by the function's, NaN where there is none: `[P][G]`.

    prompts_P, problems_P: what the responses are to.
    rollouts_PG: the responses, `[P][G]`.
    grades_PG: the task's own grades of them, `[P][G]`.

    Answer and reason stay the task's own where the function returned None: what it cannot grade may still be right or
    wrong. Where it failed, the reason is "timeout" or "error".
    """
    rows = [(p, g) for p, group in enumerate(rollouts_PG) for g in range(len(group))]
    texts = [rollouts_PG[p][g].text for p, g in rows]
    values = reward_all(reward, [prompts_P[p] for p, _ in rows], [problems_P[p] for p, _ in rows], texts)
    grades = [list(group) for group in grades_PG]
    for (p, g), value in zip(rows, values, strict=True):
        if isinstance(value, Failed):
            _tell(reward, value)
            grades[p][g] = replace(grades[p][g], reward=math.nan, reason=value.reason)
        else:
            grades[p][g] = replace(grades[p][g], reward=value)
    return grades


def _called(path: str, arguments: Arguments, calls: Sequence[range], reward: Reward) -> list[Value]:
    """What one function makes of every response. The responses of a call that failed are called again, one by one."""

    def answers(calls: Sequence[range], deadline: float) -> list[list[Value] | Failed]:
        chosen = [(path, {key: values[rows.start : rows.stop] for key, values in arguments.items()}) for rows in calls]
        return _call_all(chosen, reward, deadline)

    first = answers(calls, reward.deadline)
    failed = [rows for rows, answer in zip(calls, first, strict=True) if isinstance(answer, Failed)]
    singles = [range(i, i + 1) for rows in failed if len(rows) > 1 for i in rows]
    alone = iter(answers(singles, max(1.0, ALONE * reward.deadline)))
    values: list[Value] = []
    for rows, answer in zip(calls, first, strict=True):
        again = [next(alone) for _ in rows] if isinstance(answer, Failed) and len(rows) > 1 else [answer]
        for each in again:
            values += [each] if isinstance(each, Failed) else each
    return values


def _call_all(chosen: Sequence[tuple[str, Arguments]], reward: Reward, deadline: float) -> list[list[Value] | Failed]:
    return call_all(values_of, chosen, deadline, reward.modules, MEMORY, reward.path)


def _calls(problems: Sequence[str]) -> list[range]:
    """Which rows are handed over in one call: whole groups of one problem, up to `TOGETHER` rows."""
    calls: list[range] = []
    end = 0
    for _, group in groupby(problems):
        start, end = end, end + len(list(group))
        if calls and end - calls[-1].start <= TOGETHER:
            calls[-1] = range(calls[-1].start, end)
        else:
            calls.append(range(start, end))
    return calls


def _summed(weights: Sequence[float], values: Sequence[Value]) -> float | Failed:
    failed = next((value for value in values if isinstance(value, Failed)), None)
    if failed:
        return failed
    known = [value for value in values if isinstance(value, float)]
    total = sum(weight * value for weight, value in zip(weights, known, strict=False))
    return total if len(known) == len(values) and math.isfinite(total) else math.nan


def _arguments(prompts: Sequence[Prompt], problems: Sequence[Problem], texts: Sequence[str]) -> Arguments:
    names = {name for problem in problems for name in problem.columns}
    columns: dict[str, list[Any]] = {name: [p.columns.get(name) for p in problems] for name in sorted(names)}
    columns["id"] = [p.id for p in problems]
    columns["question"] = [p.question for p in problems]
    columns["answer"] = [p.answer for p in problems]
    columns["prompts"], columns["completions"] = list(prompts), list(texts)
    return columns


def _name(path: str) -> str:
    return path.partition(":")[2]


@cache
def _require_loadable(path: str, here: str) -> None:
    error = call_once(load_error, (path,), LOADING, MEMORY, (here,))
    why = error.said if isinstance(error, Failed) else error
    if why is not None:
        raise UserError(f'reward "{path}" cannot be loaded ({why}); write it as package.module:function')


def _tell(reward: Reward, failed: Failed) -> None:
    """Once for each kind of failure: a log would hold nothing else."""
    if (reward, failed.reason) not in _told:
        _told.add((reward, failed.reason))
        name = " + ".join(_name(path) for path, _ in reward.weights)
        _log.warning("reward %s %s; responses that it fails on have no reward", name, failed.said)
