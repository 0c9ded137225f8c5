"""Do the forecast's intervals hold what can be enumerated, and does it give no number where its samples are too few?

    python benchmarks/forecast_coverage.py [data sets, default 500]

Each data set: problems drawn from a population of 1000 random languages of 364 responses, and n samples of each. Exact
figures are sums over all responses, averaged over the population. `claims`: points with a number, of all points times
data sets. `too few`: points at which the exact effective sample size of the drawn problems (harmonic mean) is
below 5, times data sets; a number there is a false claim.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tiltlab.forecast.forecast import Point, forecast
from tiltlab.forecast.weighted_samples import Floats, Ints, WeightedSamples
from tiltlab.models.table import TableLanguage, sequence_lengths

ALPHAS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
BETAS = (1.0, 0.5, 0.3, 0.2, 0.1)
HOPELESS = 5.0
KINDS = ("mild", "wide", "peaked", "short mode", "likely", "rare")
SIZES = ((100, 32), (300, 32), (50, 64))
"""Problems, and samples of each."""


@dataclass(frozen=True)
class Population:
    """Languages of S responses each: log p, correct and length, [L, S]."""

    logp: Floats
    correct: Floats
    length: Floats

    def samples(self, rng: np.random.Generator, problems: int, n: int) -> WeightedSamples:
        """n samples of each of `problems` languages, drawn with replacement."""
        return self.samples_of(rng.integers(len(self.logp), size=problems), rng, n)

    def samples_of(self, chosen: Ints, rng: np.random.Generator, n: int) -> WeightedSamples:
        """n samples of each of these languages."""
        running = np.exp(self.logp[chosen]).cumsum(1)
        looks = rng.random((len(chosen), n)) * running[:, -1:]
        response = np.stack(
            [np.searchsorted(row, look, side="right") for row, look in zip(running, looks, strict=True)]
        )
        logp, correct, length = (
            np.take_along_axis(table[chosen], response, 1) for table in (self.logp, self.correct, self.length)
        )
        there = np.ones(response.shape, dtype=bool)
        number = np.broadcast_to(np.arange(n), response.shape).copy()
        names = tuple(str(problem) for problem in range(len(chosen)))
        none = np.zeros_like(number)
        return WeightedSamples(logp, logp, correct, correct, length, there, there, none, number, response, names)

    def exact(self, alpha: float, beta: float | None) -> tuple[float, float, float]:
        """Accuracy, length and KL of p^alpha exp(r / beta) / Z, averaged over languages."""
        gain, log_z = self._weights(alpha, beta)
        tilted = np.exp(self.logp + gain - log_z[:, None])
        kl = float(((tilted * gain).sum(1) - log_z).mean())
        return float((tilted * self.correct).sum(1).mean()), float((tilted * self.length).sum(1).mean()), kl

    def load(self, alpha: float, beta: float | None) -> Floats:
        """Samples per effective sample, of each language, [L]."""
        gain, log_z = self._weights(alpha, beta)
        squares: Floats = np.exp(self.logp + 2 * (gain - log_z[:, None])).sum(1)
        return squares

    def _weights(self, alpha: float, beta: float | None) -> tuple[Floats, Floats]:
        gain: Floats = (alpha - 1) * self.logp + (self.correct / beta if beta else 0.0)
        return gain, np.logaddexp.reduce(self.logp + gain, axis=1)


def population(kind: str, size: int = 1000, seed: int = 0) -> Population:
    """`mild`, `wide`, `peaked`: next-token tilts ever more uneven. `short mode`: most are long, the likeliest is short.
    `likely`: what is likely tends to be right. `rare`: between a third and a thousandth of all responses are right."""
    rng = np.random.default_rng(seed)
    spread = {"mild": 0.7, "peaked": 2.0}.get(kind, 1.0)
    language = TableLanguage.random(seed, prompts=[str(i) for i in range(size)], spread=spread)
    if kind == "short mode":
        logits = language.logits.detach().clone()
        logits[:, 0, 3] = torch.from_numpy(rng.normal(size=size)).float()
        logits[:, 1:40, 3] -= 2.0
        language = TableLanguage(logits, language.prompts)
    logp = language.sequence_logprobs().detach().double().numpy()
    logp = logp - np.logaddexp.reduce(logp, axis=1)[:, None]
    share = 10 ** rng.uniform(-3, -0.5, (size, 1)) if kind == "rare" else rng.beta(1, 2, (size, 1))
    correct = rng.random(logp.shape) < share
    if kind == "likely":
        standard = (logp - logp.mean(1, keepdims=True)) / logp.std(1, keepdims=True)
        correct = standard + rng.normal(size=logp.shape) > rng.normal(size=(size, 1))
    lengths = np.broadcast_to(sequence_lengths(language).numpy(), logp.shape)
    return Population(logp, correct.astype(float), lengths.astype(float))


def simulate(
    people: Population, problems: int, n: int, sets: int, alphas: tuple[float, ...], betas: tuple[float, ...]
) -> Iterator[tuple[Ints, Point]]:
    """The points of as many forecasts, one after the other, each with the languages that were drawn for it."""
    rng = np.random.default_rng(7)
    for _ in range(sets):
        chosen = rng.integers(len(people.logp), size=problems)
        for point in forecast(people.samples_of(chosen, rng, n), alphas, betas).points:
            yield chosen, point


def held(point: Point, exact: tuple[float, float, float]) -> list[bool]:
    """Whether the intervals of accuracy, length and KL hold the exact figures."""
    intervals = (point.accuracy, point.length, point.kl)
    return [i is not None and i.low - 1e-9 <= value <= i.high + 1e-9 for i, value in zip(intervals, exact, strict=True)]


def row(kind: str, problems: int, n: int, sets: int) -> tuple[str, Floats]:
    """A row of the table; and for each number given, whether accuracy, length and KL are held, and the exact ESS."""
    people = population(kind)
    tilts = [(alpha, beta) for alpha in ALPHAS for beta in (None, *BETAS)]
    exact, load = ({tilt: of(*tilt) for tilt in tilts} for of in (people.exact, people.load))
    numbers, hopeless, false = [], 0, 0
    for chosen, point in simulate(people, problems, n, sets, ALPHAS, BETAS):
        tilt = (point.alpha, point.beta)
        ess = n / load[tilt][chosen].mean()
        hopeless += ess < HOPELESS
        false += ess < HOPELESS and point.supported
        if point.supported and tilt != (1.0, None):  # that the base is the base is no feat
            numbers.append([*held(point, exact[tilt]), ess])
    table = np.array(numbers, dtype=float)
    claims = len(table) / sets / (len(tilts) - 1)
    return f"| {kind} | {problems} x {n} | {claims:.0%} | {_shares(table)} | {hopeless} | {false} |", table


def main(sets: int) -> None:
    print("| languages | problems x n | claims | accuracy | length | KL | too few | false claims |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    tables = []
    for kind in KINDS:
        for problems, n in SIZES:
            text, table = row(kind, problems, n, sets)
            tables.append(table)
            print(text, flush=True)
    print(by_size(np.concatenate(tables)))


def by_size(table: Floats) -> str:
    """The same by exact effective sample size."""
    lines = ["", "| exact effective sample size | numbers | accuracy | length | KL |", "|---|---:|---:|---:|---:|"]
    for low, high in ((0, 5), (5, 10), (10, 15), (15, 30), (30, np.inf), (0, np.inf)):
        some = table[(table[:, 3] >= low) & (table[:, 3] < high)]
        lines.append(f"| {low} to {high} | {len(some)} | {_shares(some)} |")
    return "\n".join(lines)


def _shares(table: Floats) -> str:
    return " | ".join(f"{share:.1%}" for share in table[:, :3].mean(0)) if len(table) else "– | – | –"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
