"""How often 95 % intervals hold the truth: python benchmarks/coverage.py [--sets 2000]

Each data set has so many problems, drawn with their true accuracies from a distribution, and n samples of each; the
truth is the mean of that distribution (over all problems there could be). Prints a Markdown table.
"""

import argparse

import numpy as np

from tiltlab.stats.metrics import Floats, Interval, pass_at_k, share_interval
from tiltlab.stats.paired import difference_interval

DISTRIBUTIONS = {
    "uniform": (1.0, 1.0),
    "bimodal": (0.3, 0.3),
    "easy": (9.0, 1.0),
    "hard": (0.5, 9.5),
}
SIZES = ((30, 1), (30, 16), (100, 4), (500, 1), (500, 16))


def covered(intervals: list[Interval], truth: float) -> float:
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


def accuracies(
    generator: np.random.Generator, distribution: tuple[float, float], sets: int, problems: int, n: int
) -> Floats:
    """Observed accuracy of each problem, [sets, problems]."""
    found: Floats = generator.binomial(n, generator.beta(*distribution, (sets, problems))) / n
    return found


def passed(
    generator: np.random.Generator, distribution: tuple[float, float], sets: int, problems: int, n: int
) -> Floats:
    table = np.array([pass_at_k(n, correct, 4) for correct in range(n + 1)])
    correct = generator.binomial(n, generator.beta(*distribution, (sets, problems)))
    found: Floats = table[correct]
    return found


def true_pass(distribution: tuple[float, float], k: int) -> float:
    a, b = distribution
    fails = 1.0
    for i in range(k):
        fails *= (b + i) / (a + b + i)
    return 1 - fails


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    sets = parser.parse_args().sets
    generator = np.random.default_rng(0)
    print(
        "| problems x samples |"
        + "".join(f" {distribution}: accuracy | pass@4 | difference |" for distribution in DISTRIBUTIONS)
    )
    print("|---|" + "---:|" * 3 * len(DISTRIBUTIONS))
    for problems, n in SIZES:
        cells = []
        for distribution in DISTRIBUTIONS.values():
            a, b = distribution
            shares = accuracies(generator, distribution, sets, problems, n)
            cells.append(f"{covered([share_interval(row) for row in shares], a / (a + b)):.3f}")
            if n >= 4:
                rows = passed(generator, distribution, sets, problems, n)
                cells.append(f"{covered([share_interval(row) for row in rows], true_pass(distribution, 4)):.3f}")
            else:
                cells.append("–")
            # the second run solves a tenth of what the first fails, on the same problems
            truth_PS = generator.beta(*distribution, (sets, problems))
            first = generator.binomial(n, truth_PS) / n
            second = generator.binomial(n, truth_PS + 0.1 * (1 - truth_PS)) / n
            differences = [difference_interval(row, seed, resamples=599) for seed, row in enumerate(second - first)]
            cells.append(f"{covered(differences, 0.1 * b / (a + b)):.3f}")
        print(f"| {problems} x {n} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
