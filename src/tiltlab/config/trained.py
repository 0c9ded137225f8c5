"""The arms that train: each an objective, what rewards it, and how its advantages are told."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator, model_validator

from tiltlab import objective as objectives
from tiltlab.config.arm import AnyArm
from tiltlab.errors import shown
from tiltlab.objective import Length, Objective
from tiltlab.storage.natures import Nature
from tiltlab.training.advantage import Advantage, PassK
from tiltlab.training.signals import Signal


def _advantage(given: Any) -> Any:
    """An advantage as a recipe spells it: its name, {passk: 4} or passk(4). Raises ValueError for anything else."""
    spelled = re.fullmatch(r"passk\((\d{1,9})\)", given) if isinstance(given, str) else None
    match {"passk": int(spelled[1])} if spelled else given:
        case {"passk": int(k), **rest} if not rest and not isinstance(k, bool):
            return PassK(k)
        case "leave_one_out" | "group_normalized" | "maxrl" | PassK():
            return given
    raise ValueError(f"write leave_one_out, maxrl, {{passk: 4}} or group_normalized, got {shown(given)}")


REWARDS: dict[Signal, str] = {
    "task": "task reward",
    "vote": "vote",
    "random": "random reward",
    "format": "format reward",
}
"""How what rewards an arm is called."""


class Trained(AnyArm):
    """An arm that trains; its samples are drawn at temperature 1."""

    length: Length = "sum"
    """Normalisation of the sharpening term: anything but "sum" is an ablation whose optimum is not p^alpha."""

    fixed_length: bool = False
    """Ignore EOS while sampling in training, so that every response has max_tokens tokens."""

    signal: Signal = "task"
    """What training is rewarded by; evaluation uses the task's own grade whatever it is."""

    advantage: Annotated[Advantage, BeforeValidator(_advantage)] = "leave_one_out"
    """How scores become advantages: anything but "leave_one_out" is an ablation that ascends something else."""

    normalize: bool = False
    """Another spelling of `advantage: group_normalized`."""

    @property
    def estimator(self) -> Advantage:
        """`advantage`, by whichever key it was asked for."""
        return "group_normalized" if self.normalize else self.advantage

    @property
    def votes(self) -> bool:
        return self.signal == "vote"

    @property
    def nature(self) -> Nature:
        return "trained"

    @property
    def name(self) -> str:
        return self.label or ", ".join([self._described(), *self._ablations()])

    def _ablations(self) -> list[str]:
        length = [] if self.length == "sum" else [f"length {self.length}"]
        return [*self._rewarded(), *length, *["fixed length"] * self.fixed_length, *_estimated(self.estimator)]

    def _rewarded(self) -> list[str]:
        """What rewards it, where that is not the task."""
        return [] if self.signal == "task" else [REWARDS[self.signal]]

    @model_validator(mode="after")
    def _estimable(self) -> "Trained":
        """Raises ValueError for an advantage that has nothing to be told from."""
        if self.normalize and self.advantage not in ("leave_one_out", "group_normalized"):
            raise ValueError("normalize: true is advantage: group_normalized; take one advantage")
        told = _estimated(self.estimator)
        if told and self.estimator != "group_normalized" and not self.objective().reward:
            raise ValueError(f"advantage {told[0]} is told from the reward, and this arm has none (its weight is 0)")
        if isinstance(self.advantage, PassK) and self.votes:
            raise ValueError("advantage passk needs rewards of 0 or 1, and signal vote gives shares where answers tie")
        return self

    def objective(self) -> Objective:
        raise NotImplementedError

    @field_validator("length")
    @classmethod
    def _finite(cls, length: Length) -> Length:
        if isinstance(length, float) and not math.isfinite(length):
            raise ValueError(f'length must be "sum", "mean" or a finite number, got {length}')
        return length


class Tempered(Trained):
    """Trained towards p^alpha / Z; alpha 1 is the null control."""

    arm: Literal["tempered"]
    alpha: float

    def _described(self) -> str:
        return "null control" if self.alpha == 1 else f"tempered {self.alpha:g}"

    def objective(self) -> Objective:
        return objectives.tempered(self.alpha, self.length)


class Sharpening(Trained):
    """Trained towards the argmax of p, without a reward."""

    arm: Literal["sharpening"]

    def _described(self) -> str:
        return "sharpening"

    def objective(self) -> Objective:
        return objectives.sharpening(self.length)


class TaskReward(Trained):
    """Trained on the reward alone; with `signal`, on a vote, a coin or an answer's mere presence in its place."""

    arm: Literal["task_reward"]

    def _described(self) -> str:
        return REWARDS[self.signal]

    def _rewarded(self) -> list[str]:
        return []

    def objective(self) -> Objective:
        return objectives.task_reward()


class Tilted(Trained):
    """Trained towards p^alpha exp(r / beta) / Z."""

    arm: Literal["tilted"]
    beta: float
    alpha: float = 1.0

    def _described(self) -> str:
        return f"tilted {self.beta:g}" + (f", alpha {self.alpha:g}" if self.alpha != 1 else "")

    def objective(self) -> Objective:
        return objectives.tilted(self.beta, self.alpha, self.length)


class EntropyMinimization(Trained):
    """Trained to have less entropy, weight x E[log pi]: it ends on one response, which the start and chance choose."""

    arm: Literal["entropy_minimization"]
    weight: float = 1.0

    def _described(self) -> str:
        return "entropy minimization" + (f" {self.weight:g}" if self.weight != 1 else "")

    def objective(self) -> Objective:
        if self.length != "sum":
            raise ValueError("entropy_minimization is about log pi of whole responses; leave `length` out")
        return objectives.entropy_minimization(self.weight)


class AnyObjective(Trained):
    """Trained on any other weights of the objective: reward, sharpen, and kl (beta)."""

    arm: Literal["objective"]
    reward: float = 0.0
    sharpen: float = 0.0
    kl: float = 0.0

    def _described(self) -> str:
        return f"w={self.reward:g} s={self.sharpen:g} beta={self.kl:g}"

    def objective(self) -> Objective:
        return Objective(self.reward, self.sharpen, self.kl, self.length)


def _estimated(advantage: Advantage) -> list[str]:
    """What an advantage is called, where it is an ablation."""
    match advantage:
        case PassK(k):
            return [f"pass@{k}"]
        case "maxrl":
            return ["maxrl"]
        case "group_normalized":
            return ["normalized"]
    return []
