"""Rewards of the user's own, with the signature that TRL's trainers use.

    fn(prompts=[...], completions=[...], **columns) -> list[float | None]

One entry a response; `columns` holds one list for each column of the data (and id, question, answer); None says
"could not be graded". The function is the user's code and runs in this process, so it is trusted; a time limit and a
process of its own are not here yet.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from tiltlab.errors import UserError
from tiltlab.types import Grade, Problem, Prompt, Rollout

RewardFunction = Callable[..., Sequence[float | None]]


def load_reward(path: str) -> RewardFunction:
    """The function named by "package.module:function". Raises UserError where there is none."""
    module_name, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f'reward "{path}" cannot be loaded ({error}); write it as package.module:function') from error
    if not callable(function):
        raise UserError(f'reward "{path}" is not a function')
    return function  # type: ignore[no-any-return]


def rewarded(
    reward: RewardFunction,
    prompts_P: Sequence[Prompt],
    problems_P: Sequence[Problem],
    rollouts_PG: Sequence[Sequence[Rollout]],
    grades_PG: Sequence[Sequence[Grade]],
) -> list[list[Grade]]:
    """The grades with their rewards replaced by the function's; None becomes NaN, reason "error".

    Raises UserError where the function raises, returns the wrong number of values, or one that is no finite number.
    """
    rows = [(p, g) for p, group in enumerate(rollouts_PG) for g in range(len(group))]
    name = getattr(reward, "__name__", repr(reward))
    try:
        values = list(
            reward(
                prompts=[prompts_P[p] for p, _ in rows],
                completions=[rollouts_PG[p][g].text for p, g in rows],
                **_columns([problems_P[p] for p, _ in rows]),
            )
        )
    except Exception as error:
        raise UserError(f"reward {name} raised {type(error).__name__}: {error}") from error
    if len(values) != len(rows):
        raise UserError(
            f"reward {name} returned {len(values)} values for {len(rows)} responses; it must return one each"
        )
    grades = [list(group) for group in grades_PG]
    for (p, g), value in zip(rows, values, strict=True):
        if value is None:
            grades[p][g] = replace(grades[p][g], reward=math.nan, reason="error")
            continue
        if isinstance(value, str) or not math.isfinite(value):
            raise UserError(
                f"reward {name} returned {value!r} for problem {problems_P[p].id}; "
                "return a finite number, or None for a response that cannot be graded"
            )
        grades[p][g] = replace(grades[p][g], reward=float(value))
    return grades


def _columns(problems: Sequence[Problem]) -> dict[str, list[object]]:
    names = {name for problem in problems for name in problem.columns} - {"prompts", "completions"}
    columns: dict[str, list[object]] = {name: [p.columns.get(name) for p in problems] for name in sorted(names)}
    columns["id"] = [p.id for p in problems]
    columns["question"] = [p.question for p in problems]
    columns["answer"] = [p.answer for p in problems]
    return columns
