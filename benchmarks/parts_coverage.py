"""Do the intervals of a gain's parts hold the true parts?

    python -m benchmarks.parts_coverage [data sets, default 500] [only worlds whose name holds this]

Each data set: problems drawn from a population of 1000, and n samples of either model to each. The true parts are means
over the population of what each problem's distributions have; the true best sharpening is the best, in the population,
of those that samples of this number can tell of. `sum`: the largest difference between a gain and the sum of its parts.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.special import gammaln
from tests.planted import worlds
from tests.planted.mixtures import RIGHT, Floats, Kind, Mixture, Responses, read_leniently, records, vote

from tiltlab.forecast.weighted_samples import Bools
from tiltlab.types import Record
from tiltlab.verdict.base_path import SPARED
from tiltlab.verdict.parts import Parts
from tiltlab.verdict.verdict import Evidence, decide

POPULATION = 1000
NAMES = ("ends", "read", "sharpened", "taught")


@dataclass(frozen=True)
class Pair:
    """Two models of a population of L problems."""

    base: Mixture
    tuned: Mixture

    def data(self, rng: np.random.Generator, problems: int, n: int) -> tuple[list[Record], list[Record]]:
        chosen = rng.integers(len(self.base.mean_PJ), size=problems)
        both = []
        for model in (self.base, self.tuned):
            some = Mixture(model.kinds, model.log_share_PJ[chosen], model.mean_PJ[chosen], model.sd_PJ[chosen])
            drawn = some.sample(n, rng)
            both.append(records(drawn, some.kinds, drawn.logp_PN, rng))
        return both[0], both[1]


def population(kind: str) -> Pair:
    """voting: two fifths of the base's responses have no form, and the right answer is often the most frequent; the
    tuned model has form, sharpened answers, and something taught. likelihood: likewise where likelier responses are
    right, and voting hurts. taught: voting and likelihood hurt, and nothing is missing. form: only form is learnt,
    where voting would help."""
    rng = np.random.default_rng(5)
    said = {
        "voting": partial(worlds.long, rng, POPULATION, 25.0, 0.0, right=(2, 2), mistake=0.5),
        "likelihood": partial(worlds.long, rng, POPULATION, 25.0, 0.8, "by length"),
        "taught": partial(worlds.long, rng, POPULATION, 25.0, -0.4),
        "form": partial(worlds.long_spread_answers, rng, POPULATION),
    }[kind]()
    base = said if kind == "taught" else without_form(said, rng)
    formed = base if kind == "taught" else base.formed(0.05)
    then: dict[str, Callable[[], Mixture]] = {
        "voting": lambda: formed.times(np.where(_has_answer(formed), 0.5 * formed.log_answer_PJ(), 0.0)),
        "likelihood": lambda: formed.power(1.02),
        "taught": lambda: formed,
        "form": lambda: formed,
    }
    tuned = then[kind]()
    if kind != "form":
        tuned = tuned.taught(0.5 * tuned.accuracy_P() + 0.48)
    return Pair(base, tuned)


def _has_answer(mixture: Mixture) -> Bools:
    return np.array([kind.answer is not None for kind in mixture.kinds])


def without_form(said: Mixture, rng: np.random.Generator) -> Mixture:
    """A fifth, more or less by problem, has no box, and another does not end."""
    share_PK = rng.dirichlet([6, 2, 2], len(said.mean_PJ))
    unboxed = tuple(Kind(None, said=kind.answer, tokens=kind.tokens) for kind in said.kinds)
    endless = tuple(Kind(None, complete=False, tokens=512) for _ in said.kinds)
    log_share_PJ = np.concatenate([said.log_share_PJ + np.log(share_PK[:, k, None]) for k in range(3)], 1)
    return Mixture((*said.kinds, *unboxed, *endless), log_share_PJ, np.tile(said.mean_PJ, 3), np.tile(said.sd_PJ, 3))


# What is true of a population


def true_parts(pair: Pair, n: int, *, lenient: bool) -> dict[str, float]:
    """By part: as verdict/parts.py defines them."""
    form_J = np.array([_form(kind, lenient=lenient) for kind in pair.base.kinds])
    strict_J = pair.base.right_J
    read_J = np.array([RIGHT in (kind.answer, kind.said if lenient else None) for kind in pair.base.kinds])
    f_P = _share(pair.tuned, form_J)

    def base_formed(right_J: Bools) -> Floats:
        with_P, without_P = (
            _share(pair.base, right_J & some_J) / np.maximum(_share(pair.base, some_J), 1e-12)
            for some_J in (form_J, ~form_J)
        )
        formed_P: Floats = f_P * with_P + (1 - f_P) * without_P
        return formed_P

    before, after = _share(pair.base, strict_J).mean(), _share(pair.tuned, strict_J).mean()
    strict, read = base_formed(strict_J).mean(), base_formed(read_J).mean()
    left = _share(pair.tuned, read_J).mean() - read
    counts_P = np.random.default_rng(7).binomial(n, np.minimum(_share(pair.base, form_J), 1))
    most = int(np.quantile(counts_P, SPARED, method="lower"))
    added = min(best_added(given_form(pair.base, form_J, lenient=lenient), f_P, most), max(left, 0.0))
    return dict(zip(NAMES, (strict - before, after - strict - left, added, left - added), strict=True))


def _form(kind: Kind, *, lenient: bool) -> bool:
    return kind.complete and (kind.answer is not None or (lenient and kind.said is not None))


def _share(mixture: Mixture, some_J: Bools) -> Floats:
    share_P: Floats = np.exp(mixture.log_share_PJ[:, some_J]).sum(1)
    return share_P


def given_form(base: Mixture, form_J: Bools, *, lenient: bool) -> Mixture:
    kinds = tuple(
        replace(kind, answer=kind.answer or (kind.said if lenient else None), said=None)
        for kind, formed in zip(base.kinds, form_J, strict=True)
        if formed
    )
    some = Mixture(kinds, base.log_share_PJ[:, form_J], base.mean_PJ[:, form_J], base.sd_PJ[:, form_J])
    return some.times(np.zeros(len(kinds)))


def best_added(base: Mixture, scale_P: Floats, most: int) -> float:
    """What the best sharpening adds: none, p^alpha, the likeliest of k, answer power, a vote of k; k up to `most`."""
    rng = np.random.default_rng(6)
    before_P = base.accuracy_P()
    found_P = [before_P, *(base.power(alpha).accuracy_P() for alpha in (1.02, 1.04))]
    found_P += [base.times((g - 1) * base.log_answer_PJ()).accuracy_P() for g in (2, 4)]
    ks = [2**i for i in range(2, most.bit_length())]
    found_P += [vote(base, k, rng, votes=4000).accuracy_P() for k in ks]
    drawn = base.sample(4096, rng)
    found_P += [_likeliest(base, drawn, k) for k in ks]
    return float(max((scale_P * (of_P - before_P)).mean() for of_P in found_P))


def _likeliest(base: Mixture, drawn: Responses, k: int) -> Floats:
    """Accuracy of the likeliest of k, by problem, of many samples."""
    many = drawn.logp_PN.shape[1]
    i = np.arange(k, many + 1)
    weight = np.exp(gammaln(i) - gammaln(i - k + 1) - gammaln(many + 1) + gammaln(many - k + 1) + np.log(k))
    order_PN = drawn.logp_PN.argsort(1)[:, k - 1 :]
    right_PN = base.right_J[np.take_along_axis(drawn.kind_PN, order_PN, 1)]
    accuracy_P: Floats = right_PN @ weight
    return accuracy_P


def row(kind: str, problems: int, n: int, sets: int, *, lenient: bool) -> str:
    pair = population(kind)
    true = true_parts(pair, n, lenient=lenient)
    rng = np.random.default_rng(8)
    held: dict[str, list[bool]] = {name: [] for name in NAMES}
    worst, bias = 0.0, dict.fromkeys(NAMES, 0.0)
    for seed in range(sets):
        base, tuned = pair.data(rng, problems, n)
        read = ([read_leniently(r) for r in base], [read_leniently(r) for r in tuned]) if lenient else None
        verdict = decide(Evidence(base, tuned, lenient=read), seed=seed)
        assert verdict.parts is not None
        for name in NAMES:
            interval = getattr(verdict.parts, name)
            held[name].append(interval.low - 1e-9 <= true[name] <= interval.high + 1e-9)
            bias[name] += (interval.value - true[name]) / sets
        worst = max(worst, abs(_sum(verdict.parts) - (verdict.gain.b.value - verdict.gain.a.value)))
    cells = [f"{true[name]:+.3f} ({bias[name]:+.3f}) {np.mean(held[name]):.1%}" for name in NAMES]
    graded = "lenient too" if lenient else "strict"
    return f"| {kind}, {graded} | {problems} x {n} | {' | '.join(cells)} | {worst:.0e} |"


def _sum(parts: Parts) -> float:
    return parts.ends.value + parts.read.value + parts.sharpened.value + parts.taught.value


def main(sets: int, only: str) -> None:
    print(f"| world | problems x n | {' | '.join(NAMES)} | sum |")
    print("|---|---|" + "---:|" * 5)
    for kind, lenient in (("voting", False), ("voting", True), ("likelihood", True), ("taught", False), ("form", True)):
        if only in kind:
            print(row(kind, 90, 32, sets, lenient=lenient), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, sys.argv[2] if len(sys.argv) > 2 else "")
