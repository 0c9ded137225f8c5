"""Sequential Monte Carlo for p^alpha, or p^alpha exp(r / beta): a population that grows token by token, in step.

Every particle draws its next token from the base at temperature 1 / alpha, is weighed by how far that distribution is
from p^alpha, and where a few come to hold most of the weight the population is drawn anew from itself (sequential
importance resampling: Del Moral, Doucet and Jasra, 2006; for p^alpha of a language model: arXiv 2602.10273). Particles
that are now alike can then be moved apart, without leaving the distribution (resample-move: Gilks and Berzuini, 2001).

Left out on purpose: look-ahead: the weight of a prefix says nothing of what can follow it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiltlab.models.base import LanguageModel
from tiltlab.models.engine import DrawnElsewhere, Draws
from tiltlab.objective import Objective, tempered, tilted
from tiltlab.samplers.base import GradeFn, Samples, Streams, in_turns
from tiltlab.samplers.by_request import Requests
from tiltlab.samplers.growth import ByBlock, ByToken, Growth
from tiltlab.samplers.populations import Populations
from tiltlab.types import Prompt

BLOCK = 32
"""Tokens between two looks at the weights where another engine draws."""


@dataclass(frozen=True)
class PowerSMC:
    """Targets p^alpha / Z or, with `beta`, the tilted distribution p^alpha exp(r / beta) / Z, over complete responses
    within the token limit: exactly as `particles` grows, approximately before; its estimate of Z is unbiased for any
    number.

    alpha: exponent of p, above 0.
    particles: of a population, at least 1.
    beta: weight of the KL, above 0; None leaves the reward out.
    threshold: a population resamples where its effective size falls below this share of its particles.
    ramp: tokens over which the exponent rises from 1 to alpha; 0 is alpha from the start.
    moves: proposals, as of a `PowerMCMC` chain, that each particle makes once there are 1, 2, 4, 8, ... tokens and, of
        those that are given, at the end: they leave the distribution as it is, and make alike particles differ.
    block: tokens that a particle grows by between two looks at the weights, drawn by request; left out, one, from the
        model's decoder, or 32 where another engine draws for the model.
    temperature: of the base, which tokens are drawn at; 1 / exponent where left out.

    n responses take ceil(n / particles) populations, each of which gives its particles, drawn from their weights
    (systematic resampling): those of one population are related, and repeat where few ancestors survive. A finished
    particle keeps its weight; the reward enters it when it finishes. Rewards of NaN, and responses that hit the token
    limit, weigh nothing.
    """

    alpha: float = 4.0
    particles: int = 16
    beta: float | None = None
    threshold: float = 0.5
    ramp: int = 0
    moves: int = 0
    block: int | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0, got {self.alpha}")
        if self.particles < 1:
            raise ValueError(f"particles must be at least 1, got {self.particles}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")
        if self.ramp < 0:
            raise ValueError(f"ramp must not be negative, got {self.ramp}")
        if self.moves < 0:
            raise ValueError(f"moves must not be negative, got {self.moves}")
        if self.block is not None and self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")
        if not self.proposal_temperature(self.alpha) > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        assert self.objective.kl  # raises ValueError for a beta that is not above 0

    @property
    def objective(self) -> Objective:
        """What training would aim at, with the same log_target."""
        return tempered(self.alpha) if self.beta is None else tilted(self.beta, self.alpha)

    def exponent(self, tokens: int) -> float:
        """The exponent of p in the distribution that a population stands for after so many tokens."""
        return self.alpha if tokens >= self.ramp else 1 + (self.alpha - 1) * tokens / self.ramp

    def proposal_temperature(self, exponent: float) -> float:
        """The temperature of the base that particles are drawn at, on the way to p^exponent."""
        return 1 / exponent if self.temperature is None else self.temperature

    def drawn(self, n: int) -> int:
        """One for each particle: n rounded up to whole populations. A move draws at most what there is again, which is
        twice a response for 1, 2, 4, ... tokens and once for the end."""
        return math.ceil(n / self.particles) * self.particles * (1 + 3 * self.moves)

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_tokens: int,
        seed: int,
        grade_fn: GradeFn | None = None,
    ) -> Samples:
        """n particles of the populations of each prompt (see `Sampler`); the notes hold the estimate of log Z.

        Raises ValueError for a beta without a grade_fn.
        """
        if self.beta is not None and grade_fn is None:
            raise ValueError("sampling with a reward needs a grade_fn")
        populations = math.ceil(n / self.particles)
        size = populations * self.particles  # a prompt
        streams = Streams(seed, prompts, size + populations)  # one for each particle, and one for each population
        block = self.block or (BLOCK if isinstance(model, DrawnElsewhere) else None)
        temperature = self.proposal_temperature(self.alpha)

        def run(some: Sequence[Prompt], first: int, growth: Growth) -> Samples:
            shape = (len(some), first, n, populations, max_tokens)
            return Populations(self, model, growth, streams, grade_fn, *shape).run()

        def by_token(some: Sequence[Prompt], first: int) -> Samples:
            decoder = model.decoder(some, n=size, max_tokens=max_tokens)
            return run(some, first, ByToken(decoder, temperature, self.moves))

        if block and isinstance(model, Draws):
            requests = Requests(model, prompts, size, max_tokens, seed)
            return run(prompts, 0, ByBlock(requests, block, temperature, self.moves))
        # one that moves holds its response and the proposal
        held = model.capacity(prompts, 2 * max_tokens if self.moves else max_tokens)
        return in_turns(by_token, prompts, max(1, held // size))
