"""The arms of a study: what is held side by side.

An arm is either a way of sampling the base model or a regime to train it in. Both are plain values from a recipe:

    - {arm: base}                              the base model at temperature 1
    - {arm: temperature, temperature: 0.25}    the base model, sampled colder (or cut: top_p, top_k)
    - {arm: greedy}                            the likeliest token, again and again
    - {arm: best_of_n, of: 16, by: logp}       the best of 16 samples, by logp, mean_logp or reward
    - {arm: majority, of: 16}                  one of 16 samples with the answer that most of them give
    - {arm: beam, width: 8}                    the likeliest responses, by beam search
    - {arm: power_mcmc, alpha: 4, steps: 16}   Markov chains towards p^alpha / Z; with beta, towards the tilted
    distribution
    - {arm: power_smc, alpha: 4, particles: 16}    populations of particles towards the same
    - {arm: tempered, alpha: 4}                trained towards p^alpha / Z; alpha 1 is the null control
    - {arm: sharpening}                        trained towards the argmax of p
    - {arm: task_reward}                       trained on the reward alone
    - {arm: tilted, beta: 0.1, alpha: 2}       trained towards p^alpha exp(r / beta) / Z
    - {arm: objective, reward: 1, sharpen: 0.5, kl: 0.2}    any other weights of the objective
"""

import math
from types import UnionType
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator, model_validator

from tiltlab import objective as objectives
from tiltlab.objective import Length, Objective
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.beam import Beam
from tiltlab.samplers.best_of_n import BestOfN, Majority
from tiltlab.samplers.greedy import Greedy
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.storage.shapes import Nature

MOST = 100_000
"""Of responses, particles and the like that are held side by side: more is a slip of the finger, and fills memory."""

Count = Annotated[int, Field(ge=1, le=MOST)]

LONGEST_LABEL = 80
"""Characters: a label stands in tables and names a folder."""


class _Arm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None = None
    """How the arm is called in tables; made from its values where it is left out."""

    @field_validator("label")
    @classmethod
    def _readable(cls, label: str | None) -> str | None:
        if label is not None and not (label.strip() and label.isprintable() and len(label) <= LONGEST_LABEL):
            raise ValueError(
                f"a label is one line of 1 to {LONGEST_LABEL} printable characters, got {label[:LONGEST_LABEL]!r}"
            )
        return label

    @property
    def name(self) -> str:
        return self.label or self._described()

    @property
    def nature(self) -> Nature:
        """What the arm is to the arms beside it."""
        return "likelihood"

    def _described(self) -> str:
        raise NotImplementedError

    def sampler(self) -> Sampler:
        """How the model is sampled when it is evaluated. Raises ValueError for settings that make no sampler."""
        return Temperature(1.0)

    @model_validator(mode="after")
    def _usable(self) -> "_Arm":
        self.sampler()
        self.objective()
        return self

    def objective(self) -> Objective | None:
        """What the model is trained on; None for an arm that only samples the base. Raises ValueError for weights that
        make no objective."""
        return None


class Base(_Arm):
    """The model as it is, at temperature 1."""

    arm: Literal["base"]

    @property
    def nature(self) -> Nature:
        return "base"

    def _described(self) -> str:
        return "base"


class LowTemperature(_Arm):
    """Token by token at another temperature, or cut to the likeliest tokens."""

    arm: Literal["temperature"]
    temperature: PositiveFloat = Field(0.25, allow_inf_nan=False)
    top_p: float = 1.0
    top_k: int | None = None

    @property
    def nature(self) -> Nature:
        return "plain" if self.temperature == 1 and self.top_p == 1 and self.top_k is None else "likelihood"

    def _described(self) -> str:
        cut = [f"top_p {self.top_p:g}"] * (self.top_p < 1) + [f"top_k {self.top_k}"] * (self.top_k is not None)
        return ", ".join([f"temperature {self.temperature:g}", *cut])

    def sampler(self) -> Sampler:
        return Temperature(self.temperature, self.top_p, self.top_k)


class Likeliest(_Arm):
    """The likeliest token, again and again: one response to a prompt."""

    arm: Literal["greedy"]

    def _described(self) -> str:
        return "greedy"

    def sampler(self) -> Sampler:
        return Greedy()


class Best(_Arm):
    """The best of several plain draws, by log p, by log p a token, or by reward."""

    arm: Literal["best_of_n"]
    of: int = Field(16, le=MOST)
    by: Literal["logp", "mean_logp", "reward"] = "logp"

    @property
    def nature(self) -> Nature:
        return "reward" if self.by == "reward" else "likelihood"

    def _described(self) -> str:
        return f"best of {self.of} by {self.by}"

    def sampler(self) -> Sampler:
        return BestOfN(self.of, self.by)


class Voted(_Arm):
    """A plain draw with the answer that most of several draws give."""

    arm: Literal["majority"]
    of: int = Field(16, le=MOST)

    def _described(self) -> str:
        return f"majority of {self.of}"

    def sampler(self) -> Sampler:
        return Majority(self.of)


class BeamSearch(_Arm):
    """The likeliest responses, by beam search."""

    arm: Literal["beam"]
    width: int = Field(8, le=MOST)
    length_penalty: float = Field(0.0, allow_inf_nan=False)

    def _described(self) -> str:
        return f"beam {self.width}" + (f", penalty {self.length_penalty:g}" if self.length_penalty else "")

    def sampler(self) -> Sampler:
        return Beam(self.width, self.length_penalty)


class _Power(_Arm):
    alpha: float = Field(4.0, allow_inf_nan=False)
    beta: float | None = Field(None, allow_inf_nan=False)

    @property
    def nature(self) -> Nature:
        return "power" if self.beta is None else "reward"

    def _target(self) -> str:
        return f"{self.alpha:g}" + (f", beta {self.beta:g}" if self.beta is not None else "")


class Chains(_Power):
    """Markov chains towards p^alpha / Z, or with beta towards p^alpha exp(r / beta) / Z."""

    arm: Literal["power_mcmc"]
    steps: int = Field(16, le=MOST)
    temperature: float | None = Field(None, allow_inf_nan=False)

    def _described(self) -> str:
        return f"power MCMC {self._target()}"

    def sampler(self) -> Sampler:
        return PowerMCMC(self.alpha, self.steps, self.beta, self.temperature)


class Populations(_Power):
    """Populations of particles towards p^alpha / Z, or with beta towards p^alpha exp(r / beta) / Z."""

    arm: Literal["power_smc"]
    particles: int = Field(16, le=MOST)
    threshold: float = 0.5
    ramp: int = 0

    def _described(self) -> str:
        return f"power SMC {self._target()}"

    def sampler(self) -> Sampler:
        return PowerSMC(self.alpha, self.particles, self.beta, self.threshold, self.ramp)


class Trained(_Arm):
    """An arm that trains; its samples are drawn at temperature 1."""

    length: Length = "sum"
    """Normalisation of the sharpening term: anything but "sum" is an ablation whose optimum is not p^alpha."""

    fixed_length: bool = False
    """Ignore EOS while sampling in training, so that every response has max_tokens tokens."""

    normalize: bool = False
    """Divide advantages by the group's spread: an ablation that moves the optimum."""

    @property
    def nature(self) -> Nature:
        return "trained"

    @property
    def name(self) -> str:
        return self.label or ", ".join([self._described(), *self._ablations()])

    def _ablations(self) -> list[str]:
        length = [] if self.length == "sum" else [f"length {self.length}"]
        return length + ["fixed length"] * self.fixed_length + ["normalized"] * self.normalize

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
    """Trained on the reward alone."""

    arm: Literal["task_reward"]

    def _described(self) -> str:
        return "task reward"

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


Sampled = Base | LowTemperature | Likeliest | Best | Voted | BeamSearch | Chains | Populations
"""Arms that sample the base as it is."""

Taught = Tempered | Sharpening | TaskReward | Tilted | AnyObjective
"""Arms that train."""

Arm = Annotated[Sampled | Taught, Field(discriminator="arm")]


def named(kind: UnionType) -> dict[str, type[_Arm]]:
    """The arms of `Sampled` or `Taught` by the names that a recipe calls them by."""
    return {get_args(arm.model_fields["arm"].annotation)[0]: arm for arm in get_args(kind)}
