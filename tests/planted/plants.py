"""What is planted: a base, a tuned model, and what must be found of the two."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tests.planted.enumerable import TUNED, World
from tests.planted.enumerable import Kind as Language
from tests.planted.mixtures import Distribution, Mixture, read_leniently, records
from tiltlab.objective import tempered
from tiltlab.seeds import derive
from tiltlab.types import Record
from tiltlab.verdict.verdict import Evidence, Outcome, Verdict, decide


@dataclass(frozen=True)
class Planted:
    """Records of two models, and what only both models can say.

    cross_logp: log-probability of each base response under the tuned model, in nats. powers: samples of p^alpha.
    """

    base: list[Record]
    tuned: list[Record]
    cross_logp: list[float]
    powers: Mapping[str, list[Record]]

    def verdict(self, seed: int, *, models: bool) -> Verdict:
        """With `models`, as `tiltlab verdict` has it that holds both: base responses scored under the tuned one,
        samplers that sharpen the base, and lenient grades too. Without, from records alone."""
        if not models:
            return decide(Evidence(self.base, self.tuned), seed=seed)
        base, tuned = ([read_leniently(record) for record in of] for of in (self.base, self.tuned))
        evidence = Evidence(self.base, self.tuned, self.cross_logp, powers=self.powers, lenient=(base, tuned))
        return decide(evidence, seed=seed)


@dataclass(frozen=True)
class Parts:
    """Known parts of a gain over all problems there could be, as accuracy; None where nobody says."""

    form: float | None = None
    sharpened: float | None = None
    taught: float | None = None


@dataclass(frozen=True)
class Plant:
    """truth: what must be found with both models. alone: from records alone, where that is something else. make: of a
    seed."""

    name: str
    truth: Outcome
    make: Callable[[int], Planted]
    parts: Parts = Parts()
    alone: Outcome | None = None

    def expected(self, *, models: bool) -> Outcome:
        return self.truth if models or self.alone is None else self.alone

    def verdict(self, seed: int, *, models: bool = True) -> Verdict:
        return self.make(seed).verdict(seed, models=models)


Base = Callable[[np.random.Generator, int], Mixture]
"""By the number of problems."""

Tuned = Callable[[Mixture, np.random.Generator], Distribution]
"""Made of the base."""


def enumerable(name: str, kind: Language, seed: int, problems: int, n: int) -> Planted:
    """A language of which all responses are known, and the tuned model of this name."""
    world = World.make(kind, seed, problems)
    log_pi_PS = TUNED[name](world)
    base, which_PN = world.drawn(world.logp_PS, n, 3 * seed + 1)
    tuned, _ = world.drawn(log_pi_PS, n, 3 * seed + 2)
    powers = {f"power {a}": world.drawn(world.distribution(tempered(a)), n, 3 * seed)[0] for a in (2, 4)}
    return Planted(base, tuned, log_pi_PS.gather(1, which_PN).clamp(min=-1e4).flatten().tolist(), powers)


def mixture(
    name: str, base: Base, tuned: Tuned, alphas: tuple[float, ...], seed: int, problems: int, n: int
) -> Planted:
    """n responses of each to each problem. alphas: what the samplers draw that sharpen the base."""
    generator = np.random.default_rng(derive(seed, name))
    world = base(generator, problems)
    target = tuned(world, generator)
    of_base, of_tuned = world.sample(n, generator), target.sample(n, generator)
    with np.errstate(divide="ignore"):
        log_ratio_PN = target.log_density(of_base) - world.log_density(of_base)
        log_pi_PN = of_tuned.logp_PN + target.log_density(of_tuned) - world.log_density(of_tuned)
    cross = (of_base.logp_PN + log_ratio_PN).clip(min=-1e4).ravel().tolist()
    before = records(of_base, world.kinds, of_base.logp_PN, generator)
    after = records(of_tuned, world.kinds, log_pi_PN, generator)
    powers = {}
    for alpha in alphas:
        some = world.power(alpha).sample(n, generator)
        powers[f"power {alpha:.4g}"] = records(some, world.kinds, some.logp_PN, generator)
    return Planted(before, after, cross, powers)
