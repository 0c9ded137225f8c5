"""Rewards of the user's own, called as TRL's trainers call them.

    fn(prompts=[...], completions=[...], **columns) -> list[float | None]

One entry a response; `columns` holds one list for each column of the data (and id, question, answer); None says
"could not be graded". One difference: for conversational data TRL hands over completions as lists of messages; ours
are always plain strings, also where the prompt is chat messages. The function is the user's code and runs in this
process, so it is trusted; a time limit and a process of its own are not here yet.
"""

import importlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

from tiltlab.errors import UserError
from tiltlab.types import Grade, Problem, Prompt, Rollout

RewardFunction = Callable[..., Sequence[float | None]]


def load_reward(path: str) -> RewardFunction:
    """The function named by "package.module:function", sought in the current directory first.

    Raises UserError where there is none, or where its module raises anything.
    """
    module_name, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # the `tiltlab` command, unlike `python -m`, does not put it there
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (Exception, SystemExit) as error:  # the module is the user's: it may raise anything, or exit
        raise UserError(
            f'reward "{path}" cannot be loaded ({_said(error)}); write it as package.module:function'
        ) from error
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
    """The grades with their rewards replaced by the function's, NaN where it returned None. Answer and reason stay the
    task's own: what the function cannot grade may still be right or wrong.

    Raises UserError where the function raises, returns the wrong number of values, or one that is no finite number.
    """
    rows = [(p, g) for p, group in enumerate(rollouts_PG) for g in range(len(group))]
    name = getattr(reward, "__name__", repr(reward))
    values = _called(
        reward,
        name,
        prompts=[prompts_P[p] for p, _ in rows],
        completions=[rollouts_PG[p][g].text for p, g in rows],
        **_columns([problems_P[p] for p, _ in rows]),
    )
    if len(values) != len(rows):
        raise UserError(
            f"reward {name} returned {len(values)} values for {len(rows)} responses; it must return one each"
        )
    grades = [list(group) for group in grades_PG]
    for (p, g), value in zip(rows, values, strict=True):
        number = math.nan if value is None else _finite(value)
        if number is None:
            shown = " ".join(repr(value).split())[:60]
            raise UserError(
                f"reward {name} returned {shown} for problem {problems_P[p].id}; "
                "return a finite number, or None for a response that cannot be graded"
            )
        grades[p][g] = replace(grades[p][g], reward=number)
    return grades


def _called(reward: RewardFunction, name: str, **arguments: Any) -> list[Any]:
    try:
        returned: Any = reward(**arguments)
        usable = isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping)
        values = list(returned) if usable else None
    except Exception as error:
        raise UserError(f"reward {name} raised {_said(error)}") from error
    if values is None:
        raise UserError(f"reward {name} returned a {type(returned).__name__}; it must return a list of numbers")
    return values


def _finite(value: Any) -> float | None:
    """A finite number, or None for anything else. True and False are 1 and 0."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # of numpy or torch
    if not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except (OverflowError, ValueError):  # an int beyond all floats; Decimal's signalling NaN
        return None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _columns(problems: Sequence[Problem]) -> dict[str, list[object]]:
    names = {name for problem in problems for name in problem.columns} - {"prompts", "completions"}
    columns: dict[str, list[object]] = {name: [p.columns.get(name) for p in problems] for name in sorted(names)}
    columns["id"] = [p.id for p in problems]
    columns["question"] = [p.question for p in problems]
    columns["answer"] = [p.answer for p in problems]
    return columns
