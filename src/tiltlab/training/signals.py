"""What training is rewarded by: the task's reward, or one that takes no label.

Only what a response answers is read here, never whether it is right: but for "task", gold answers play no part.

Left out on purpose: soft votes and confidence. The entropy of the policy is an objective (objective.py), no signal.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tiltlab.types import Grade, Rollout

Signal = Literal["task", "vote", "random", "format"]
"""task: the task's reward, or the user's own. vote, random, format: see `signal_rewards`."""

Truncated = Literal["drop", "keep"]
"""What becomes of a response that the token limit cuts off: it leaves its group, or counts as it stands."""


def signal_rewards(
    signal: Signal,
    rollouts_PG: Sequence[Sequence[Rollout]],
    grades_PG: Sequence[Sequence[Grade]],
    seed: int,
    truncated: Truncated = "drop",
) -> list[list[float]]:
    """The reward of every response, [P][G]; NaN only for "task", where the grade has none.

    task: the grade's own.
    vote: 1 for the answer that most of the group gives, 1 / t for each of t answers that tie, 0 for any other. A
        response that has no answer casts no vote and gets 0, and so does a truncated one unless those are kept. The
        response's own vote counts (TTRL, arXiv 2504.16084, 2025).
    random: a fair coin from `seed`, which is to differ from step to step (arXiv 2506.10947, 2025).
    format: 1 where an answer stands where the task reads it, else 0; whatever it is (arXiv 2506.10947, 2025).
    """
    match signal:
        case "task":
            return [[grade.reward for grade in grades] for grades in grades_PG]
        case "vote":
            return [
                _votes(rollouts, grades, truncated) for rollouts, grades in zip(rollouts_PG, grades_PG, strict=True)
            ]
        case "format":
            return [[float(grade.answer is not None) for grade in grades] for grades in grades_PG]
    coins = np.random.default_rng(seed)
    return [coins.integers(2, size=len(group)).astype(float).tolist() for group in rollouts_PG]


def _votes(rollouts: Sequence[Rollout], grades: Sequence[Grade], truncated: Truncated) -> list[float]:
    pairs = zip(rollouts, grades, strict=True)
    answers = [grade.answer if rollout.complete or truncated == "keep" else None for rollout, grade in pairs]
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    winners = {answer for answer, count in votes.items() if count == most}
    return [1 / len(winners) if answer in winners else 0.0 for answer in answers]
