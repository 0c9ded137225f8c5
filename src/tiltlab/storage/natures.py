"""What an arm is, as recipes and study.json have it."""

from typing import Literal, get_args

from tiltlab.storage.files import Json

Trained = Literal["tempered", "sharpening", "task_reward", "tilted", "entropy_minimization", "objective"]
Kind = (
    Trained
    | Literal[
        "base", "greedy", "best_of_n", "majority", "answer_power", "beam", "power_mcmc", "power_smc", "temperature"
    ]
)

Nature = Literal["base", "plain", "likelihood", "answers", "power", "reward", "trained"]
"""What an arm is, as it says itself in study.json: the base; an arm that samples from the base's own distribution all
the same; one that sharpens it by its likelihood alone, by its answers alone, or towards a p^alpha; one that looks at
the reward; one that trains."""


def nature_of(arm: Json) -> Nature:
    """What an arm is, for a study.json that was written before arms said so.

    arm: as a recipe has it.
    """
    match arm:
        case {"arm": "base"}:
            return "base"
        case {"arm": "temperature", "temperature": 1} if arm.get("top_p", 1) == 1 and arm.get("top_k") is None:
            return "plain"
        case {"arm": "best_of_n", "by": "reward"}:
            return "reward"
        case {"arm": "majority" | "answer_power"}:
            return "answers"
        case {"arm": "power_mcmc" | "power_smc"}:
            return "power" if arm.get("beta") is None else "reward"
    return "trained" if arm["arm"] in get_args(Trained) else "likelihood"
