"""The arms of a study: what is held side by side.

An arm is either a way of sampling the base model or a regime to train it in. Both are plain values from a recipe:

    - {arm: base}                              the base model at temperature 1
    - {arm: temperature, temperature: 0.25}    the base model, sampled colder (or cut: top_p, top_k)
    - {arm: greedy}                            the likeliest token, again and again
    - {arm: best_of_n, of: 16, by: logp}       the best of 16 samples, by logp, mean_logp or reward
    - {arm: majority, of: 16}                  one of 16 samples with the answer that most of them give
    - {arm: answer_power, g: 4}                towards p(y) P(answer)^3 / Z: the first of 4 samples that agree
    - {arm: beam, width: 8}                    the likeliest responses, by beam search
    - {arm: power_mcmc, alpha: 4, steps: 16}   Markov chains towards p^alpha / Z; with beta, tilted too
    - {arm: power_smc, alpha: 4, particles: 16}    populations of particles towards the same
    - {arm: tempered, alpha: 4}                trained towards p^alpha / Z; alpha 1 is the null control
    - {arm: sharpening}                        trained towards the argmax of p
    - {arm: task_reward}                       trained on the reward alone
    - {arm: tilted, beta: 0.1, alpha: 2}       trained towards p^alpha exp(r / beta) / Z
    - {arm: task_reward, signal: vote}         trained on the answer that most of the group gives; or random, or format
    - {arm: entropy_minimization, weight: 1}   trained to have less entropy: E[log pi]
    - {arm: objective, reward: 1, sharpen: 0.5, kl: 0.2}    any other weights of the objective
"""

from types import UnionType
from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveFloat

from tiltlab.config.arm import MOST, AnyArm
from tiltlab.config.trained import AnyObjective, EntropyMinimization, Sharpening, TaskReward, Tempered, Tilted
from tiltlab.samplers.answer_power import AnswerPower
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.beam import Beam
from tiltlab.samplers.best_of_n import BestOfN, Majority
from tiltlab.samplers.greedy import Greedy
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.storage.natures import Nature


class Base(AnyArm):
    """The model as it is, at temperature 1."""

    arm: Literal["base"]

    @property
    def nature(self) -> Nature:
        return "base"

    def _described(self) -> str:
        return "base"


class LowTemperature(AnyArm):
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


class Likeliest(AnyArm):
    """The likeliest token, again and again: one response to a prompt."""

    arm: Literal["greedy"]

    def _described(self) -> str:
        return "greedy"

    def sampler(self) -> Sampler:
        return Greedy()


class Best(AnyArm):
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


class _ByAnswers(AnyArm):
    """Drawn by looking at the base's answers, and at nothing else."""

    @property
    def nature(self) -> Nature:
        return "answers"

    @property
    def votes(self) -> bool:
        return True


class Voted(_ByAnswers):
    """A plain draw with the answer that most of several draws give."""

    arm: Literal["majority"]
    of: int = Field(16, le=MOST)

    def _described(self) -> str:
        return f"majority of {self.of}"

    def sampler(self) -> Sampler:
        return Majority(self.of)


class Agreeing(_ByAnswers):
    """The first of g plain draws that all give the same answer: p(y) P(answer)^(g - 1) / Z."""

    arm: Literal["answer_power"]
    g: int = Field(4, le=MOST)
    budget: int = Field(64, le=MOST)
    """Draws, at most, for each response that is wanted; a prompt that would take more is given up, and it is said."""

    def _described(self) -> str:
        return f"answer power {self.g}"

    def sampler(self) -> Sampler:
        return AnswerPower(self.g, self.budget)


class BeamSearch(AnyArm):
    """The likeliest responses, by beam search."""

    arm: Literal["beam"]
    width: int = Field(8, le=MOST)
    length_penalty: float = Field(0.0, allow_inf_nan=False)

    def _described(self) -> str:
        return f"beam {self.width}" + (f", penalty {self.length_penalty:g}" if self.length_penalty else "")

    def sampler(self) -> Sampler:
        return Beam(self.width, self.length_penalty)


class _Power(AnyArm):
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
    moves: int = Field(0, le=MOST)
    """Proposals of each particle after 1, 2, 4, 8, ... tokens and at the end, which make alike particles differ."""
    block: int | None = None
    """Tokens between two looks at the weights, drawn by request; left out, 1 from the model itself and else 32."""
    temperature: float | None = Field(None, allow_inf_nan=False)

    def _described(self) -> str:
        return f"power SMC {self._target()}"

    def sampler(self) -> Sampler:
        return PowerSMC(
            self.alpha, self.particles, self.beta, self.threshold, self.ramp, self.moves, self.block, self.temperature
        )


Sampled = Base | LowTemperature | Likeliest | Best | Voted | Agreeing | BeamSearch | Chains | Populations
"""Arms that sample the base as it is."""

Taught = Tempered | Sharpening | TaskReward | Tilted | EntropyMinimization | AnyObjective
"""Arms that train."""

Arm = Annotated[Sampled | Taught, Field(discriminator="arm")]


def named(kind: UnionType) -> dict[str, type[AnyArm]]:
    """The arms of `Sampled` or `Taught` by the names that a recipe calls them by."""
    return {get_args(arm.model_fields["arm"].annotation)[0]: arm for arm in get_args(kind)}
