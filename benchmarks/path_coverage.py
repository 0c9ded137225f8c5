"""Do the intervals of the rank path, of answer power and of votes hold what can be enumerated?

    python benchmarks/path_coverage.py [--sets 500] [--seed 0] [KIND ...]

Each data set: problems drawn from a population of 1000 languages of 364 responses with answers, and n samples of each.
Samples of a language come from a pool of REPLICATES; exact figures are sums over all responses, averaged over the
population. `claims`: points with a number, of all points times data sets. `does not carry`: points whose estimates are
off by more than a standard error in the mean, times data sets; a number there is a false claim.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from math import factorial
from typing import TypeVar

import numpy as np
from benchmarks.forecast_coverage import Population, population

from tiltlab.forecast.answers import Votes, tally
from tiltlab.forecast.lines import LinePoint, answer_line, rank_line, vote_line
from tiltlab.forecast.ranks import RankPath, rank_path
from tiltlab.forecast.voting import AnswerPath, VotePath, answer_path, vote_path
from tiltlab.forecast.weighted_samples import Floats, Ints, WeightedSamples

KINDS = ("mild", "wide", "peaked", "spread", "lazy", "close")
SIZES = ((100, 32), (100, 64), (50, 64))
"""Problems, and samples of each."""

RANKS = (1, 2, 4, 16, 64)
POWERS = (1.0, 2.0, 4.0, 8.0)
VOTES = (1, 2, 4, 16)
REPLICATES = 8
RIGHT, NOBODY = 0, -1


@dataclass(frozen=True)
class Answered:
    """Languages of S responses, and the answer of each, [L, S]: RIGHT, others from 1, or NOBODY's."""

    people: Population
    answer: Ints

    def samples(self, rng: np.random.Generator, chosen: Ints, n: int) -> tuple[WeightedSamples, Votes]:
        """n samples of each of these languages."""
        samples = self.people.samples_of(chosen, rng, n)
        answer_PN = np.take_along_axis(self.answer[chosen], samples.response, 1)
        return samples, tally(samples.problems, answer_PN, samples.correct, samples.length)

    def masses(self) -> Floats:
        """Of each answer, and in the last column of none, [L, A + 1]."""
        p = np.exp(self.people.logp)
        kinds = [*range(int(self.answer.max()) + 1), NOBODY]
        return np.stack([(p * (self.answer == a)).sum(1) for a in kinds], 1)

    def lengths(self) -> Floats:
        """Mean length of the responses that give each answer, [L, A + 1]."""
        p = np.exp(self.people.logp) * self.people.length
        kinds = [*range(int(self.answer.max()) + 1), NOBODY]
        return np.stack([(p * (self.answer == a)).sum(1) for a in kinds], 1) / np.maximum(self.masses(), 1e-300)

    def of_answers(self, chance_LA: Floats) -> Floats:
        """Accuracy, length and KL of answers with these chances, in the base's own wordings, [L, 3]."""
        ratio = np.where(chance_LA > 0, chance_LA, 1.0) / np.where(chance_LA > 0, self.masses(), 1.0)
        columns = (chance_LA[:, RIGHT], (chance_LA * self.lengths()).sum(1), (chance_LA * np.log(ratio)).sum(1))
        return np.stack(columns, 1)

    def powered(self, g: float) -> Floats:
        mass = self.masses()
        if g == 1:
            return self.of_answers(mass)
        chance = mass**g
        chance[:, -1] = 0.0
        return self.of_answers(chance / chance.sum(1, keepdims=True))

    def voted(self, k: int) -> Floats:
        return self.of_answers(vote_of(self.masses(), k))

    def ranked(self, k: int) -> Floats:
        """Accuracy, length and KL of the likeliest of k, ties shared, [L, 3]."""
        key = np.round(self.people.logp, 9)
        order = np.argsort(key, axis=1)
        key, p = (np.take_along_axis(table, order, 1) for table in (key, np.exp(self.people.logp)))
        new = np.ones(key.shape, dtype=bool)
        new[:, 1:] = key[:, 1:] != key[:, :-1]
        group = new.ravel().cumsum().reshape(new.shape) - 1
        mass, below = np.bincount(group.ravel(), p.ravel()), (p.cumsum(1) - p)[new]
        ratio = (((below + mass) ** k - below**k) / mass)[group]
        right, length = (np.take_along_axis(t, order, 1) for t in (self.people.correct, self.people.length))
        logs = np.log(np.maximum(ratio, 1e-300))
        return np.stack([(p * ratio * column).sum(1) for column in (right, length, logs)], 1)


def vote_of(mass_LA: Floats, k: int) -> Floats:
    """Chance that the vote of k independent samples returns each answer, the last of no answer, [L, A + 1]: by
    exponential generating functions up to z^k, level rivals sharing by an integral over u."""
    answers, none = mass_LA[:, :-1].T, mass_LA[:, -1]
    j = np.arange(k + 1)
    over = np.array([1 / factorial(i) for i in j])
    terms = answers[..., None] ** j * over
    chance = np.zeros(mass_LA.shape)
    chance[:, -1] = none**k
    for votes in range(1, k + 1):
        nodes, weights = np.polynomial.legendre.leggauss(k // votes // 2 + 1)
        for u, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            rivals = terms * ((j < votes) + u * (j == votes))
            for a in range(len(answers)):
                rest = none[:, None] ** j * over
                for b in range(len(answers)):
                    rest = _times(rest, rivals[b]) if b != a else rest
                chance[:, a] += weight * factorial(k) * terms[a, :, votes] * rest[:, k - votes]
    return chance


def _times(one: Floats, other: Floats) -> Floats:
    product = np.zeros_like(one)
    for i in range(one.shape[1]):
        product[:, i:] += one[:, i, None] * other[:, : one.shape[1] - i]
    return product


def answered(kind: str, size: int = 1000, seed: int = 0) -> Answered:
    """`mild`, `wide`, `peaked`: random languages whose responses have answers at random. `spread`: the likeliest
    response is wrong, the right answer has more mass, in many wordings some of which are as likely as each other.
    `lazy`: the likeliest response is wrong, and its answer is mostly the most frequent. `close`: all responses are much
    alike, and everywhere a wrong answer leads the right one by a little: the hardest race to tell from samples."""
    rng = np.random.default_rng(seed)
    people = population(kind if kind in ("mild", "peaked") else "wide", size, seed)
    logp = people.logp.copy()
    if kind in ("spread", "lazy"):
        top = rng.uniform(0.1, 0.35, (size, 1)) if kind == "spread" else rng.uniform(0.35, 0.65, (size, 1))
        first = np.argmax(logp, axis=1)[:, None]
        if kind == "spread":
            logp = -rng.integers(0, 5, logp.shape) * np.log(2.0)
        np.put_along_axis(logp, first, -np.inf, 1)
        logp += np.log(1 - top) - np.logaddexp.reduce(logp, axis=1)[:, None]
        np.put_along_axis(logp, first, np.log(top), 1)
    if kind == "close":
        logp = np.full(logp.shape, -np.log(logp.shape[1]))
    weight = {"close": (90.0, 120, 60, 30), "spread": (6.0, 1, 1, 1, 0.5), "lazy": (4.0, 2, 1, 1, 0.5)}.get(
        kind, (2.0, 1.5, 1, 1, 0.5, 0.5, 0.5)
    )
    shares = rng.dirichlet(weight, size)
    answer = (rng.random(logp.shape)[..., None] > shares.cumsum(1)[:, None, :-1]).sum(-1)
    answer = np.where(answer == len(weight) - 1, NOBODY, answer)
    if kind in ("spread", "lazy"):
        np.put_along_axis(answer, first, 1, 1)
    return Answered(Population(logp, (answer == RIGHT).astype(float), people.length), answer)


Path = TypeVar("Path", RankPath, AnswerPath, VotePath)


def some(path: Path, rows: Ints) -> Path:
    """Of these problems: the second axis of a table, the first of a list."""
    arrays = {f.name: getattr(path, f.name) for f in fields(path)}
    cut = {name: v[rows] if v.ndim == 1 else v[:, rows] for name, v in arrays.items() if isinstance(v, np.ndarray)}
    return replace(path, problems=tuple(path.problems[row] for row in rows), **cut)


Key = tuple[str, float]


@dataclass(frozen=True)
class Pool:
    """Paths of REPLICATES of every language; exact figures [3] of each point, and which points do not carry."""

    ranks: RankPath
    powers: AnswerPath
    votes: VotePath
    samples: int
    exact: dict[Key, Floats]

    @classmethod
    def of(cls, world: Answered, n: int, seed: int = 7) -> "Pool":
        rng = np.random.default_rng(seed)
        languages = len(world.answer)
        samples, votes = world.samples(rng, np.arange(languages * REPLICATES) % languages, n)
        exact = {("rank", float(k)): world.ranked(k).mean(0) for k in RANKS}
        exact |= {("power", g): world.powered(g).mean(0) for g in POWERS}
        exact |= {("vote", float(k)): world.voted(k).mean(0) for k in VOTES}
        return cls(rank_path(samples, RANKS), answer_path(votes, POWERS), vote_path(votes, VOTES), n, exact)

    def lines(self, rows: Ints) -> Iterator[tuple[Key, LinePoint]]:
        """All points from these rows of the pool."""
        lines = {
            "rank": rank_line(some(self.ranks, rows)),
            "power": answer_line(some(self.powers, rows), self.samples),
            "vote": vote_line(some(self.votes, rows)),
        }
        for name, points in lines.items():
            for point in points:
                yield (name, point.strength), point

    def hopeless(self, problems: int) -> set[Key]:
        """Points whose estimates are off, in the mean, by more than the standard error of so many problems."""
        found = set()
        tables = {("power", g): self.powers.figures(i).corrected[:, :3] for i, g in enumerate(self.powers.gs)}
        for key, table in tables.items():
            error = table.std(0) / np.sqrt(problems)
            if (np.abs(table.mean(0) - self.exact[key]) > error + 1e-9).any():
                found.add(key)
        return found


def simulate(pool: Pool, problems: int, sets: int, seed: int = 0) -> Iterator[tuple[Key, LinePoint]]:
    rng = np.random.default_rng(seed)
    for _ in range(sets):
        yield from pool.lines(rng.integers(len(pool.ranks.problems), size=problems))


def held(point: LinePoint, exact: Floats) -> list[float]:
    """Whether accuracy, length and KL are held: NaN where there is no number."""
    intervals = (point.accuracy, point.length, point.kl)
    return [
        np.nan if i is None else float(i.low - 1e-9 <= v <= i.high + 1e-9)
        for i, v in zip(intervals, exact, strict=True)
    ]


def row(kind: str, pool: Pool, problems: int, sets: int, seed: int) -> Iterator[str]:
    """The rows of a table, a point each."""
    points_of: dict[Key, list[list[float]]] = {}
    hopeless, false = pool.hopeless(problems), 0
    for key, point in simulate(pool, problems, sets, seed=seed + sum(map(ord, kind)) + problems + pool.samples):
        points_of.setdefault(key, []).append(held(point, pool.exact[key]))
        false += key in hopeless and point.supported
    for (name, strength), points in points_of.items():
        if strength == 1 and name != "rank":  # the base thrice
            continue
        table = np.array(points)
        claims = 1 - np.isnan(table).mean(0)
        shares = [
            f"{np.nanmean(c):.1%}" + (f" ({claim:.0%})" if claim < 1 else "") if claim else "–"
            for c, claim in zip(table.T, claims, strict=True)
        ]
        carries = "no" if (name, strength) in hopeless else "yes"
        yield f"| {kind} | {problems} x {pool.samples} | {name} {strength:g} | {' | '.join(shares)} | {carries} |"
    yield f"| {kind} | {problems} x {pool.samples} | false claims: {false} | | | | |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=KINDS, choices=[*KINDS, []])
    parser.add_argument("--sets", type=int, default=500, help="data sets of each kind and size")
    parser.add_argument("--seed", type=int, default=0, help="of the languages, of their samples, and of what is drawn")
    options = parser.parse_args()
    print("| languages | problems x n | point | accuracy | length | KL | carries |")
    print("|---|---|---|---:|---:|---:|---|")
    for kind in options.kinds:
        world = answered(kind, seed=options.seed)
        pools: dict[int, Pool] = {}
        for problems, n in SIZES:
            pools[n] = pools.get(n) or Pool.of(world, n, seed=7 + options.seed)
            for line in row(kind, pools[n], problems, options.sets, options.seed):
                print(line, flush=True)


if __name__ == "__main__":
    main()
