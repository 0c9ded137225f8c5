"""How often is the verdict right where the truth is known?

python -m tests.planted [--seeds 20] [--only TEXT]      TEXT: of the names of plants

"cannot tell" where something could be told is a miss; anything else that is not so is a false claim, which is worse.
"""

import argparse
from collections import Counter

from tests.planted.catalogue import PLANTS
from tests.planted.plants import Plant
from tiltlab.verdict.verdict import Outcome

Counts = Counter[Outcome]


def outcomes(plant: Plant, seeds: range) -> tuple[Counts, Counts]:
    """With both models, and from records alone."""
    both, alone = Counts(), Counts()
    for seed in seeds:
        planted = plant.make(seed)
        both[planted.verdict(seed, models=True).outcome] += 1
        alone[planted.verdict(seed, models=False).outcome] += 1
    return both, alone


def row(plant: Plant, both: Counts, alone: Counts) -> str:
    cells = []
    for counts, models in ((both, True), (alone, False)):
        truth = plant.expected(models=models)
        missed = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if outcome != truth)
        cells.append(f"{counts[truth]} of {counts.total()}" + (f" ({missed})" if missed else ""))
    told = plant.truth if plant.alone is None else f"{plant.truth}; from records {plant.alone}"
    return f"| {plant.name} | {told} | {cells[0]} | {cells[1]} |"


def false_claims(plant: Plant, counts: Counts, *, models: bool) -> int:
    return sum(n for outcome, n in counts.items() if outcome not in ("cannot tell", plant.expected(models=models)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", default="", metavar="TEXT")
    settings = parser.parse_args()
    print("| planted | truth | right, both models | right, records alone |")
    print("|---|---|---:|---:|")
    verdicts = false = 0
    for plant in PLANTS:
        if settings.only in plant.name:
            both, alone = outcomes(plant, range(settings.seeds))
            print(row(plant, both, alone), flush=True)
            verdicts += both.total() + alone.total()
            false += false_claims(plant, both, models=True) + false_claims(plant, alone, models=False)
    print(f"\n{false} false claims in {verdicts} verdicts.")


if __name__ == "__main__":
    main()
