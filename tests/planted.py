"""Pairs of models of which it is known what the gain is made of, on languages that can be enumerated.

python -m tests.planted [--seeds 20]      prints, for each, how often the verdict is right
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tiltlab.models.table import TableLanguage, optimum
from tiltlab.objective import sharpening, tempered, tilted
from tiltlab.types import Record
from tiltlab.verdict.verdict import Evidence, Outcome, Verdict, judge

Kind = Literal["helpful", "lazy", "unsolved"]
SAMPLES, PROBLEMS = 32, 150


@dataclass(frozen=True)
class World:
    """A base and which of its responses are right, [P, S].

    helpful: the likeliest response is right on nine problems of ten, others on three of ten. lazy: the likeliest is
    always wrong, of the others half are right. unsolved: right responses have a mass of 3e-5 at most, a problem.
    """

    base: TableLanguage
    logp_PS: Tensor
    correct_PS: Tensor

    @classmethod
    def make(cls, kind: Kind, seed: int, problems: int) -> "World":
        base = TableLanguage.random(seed, prompts=[f"{seed}-{i}" for i in range(problems)], spread=1.5)
        logp_PS = base.sequence_logprobs().detach().double()
        generator = torch.Generator().manual_seed(seed)
        luck_PS = torch.rand(logp_PS.shape, generator=generator)
        likeliest_PS = logp_PS == logp_PS.max(1, keepdim=True).values
        if kind == "unsolved":
            ordered = logp_PS.sort(1)
            rare = (ordered.values.exp().cumsum(1) < 3e-5).sum(1, keepdim=True)
            correct_PS = ordered.indices.argsort(1) < rare
        elif kind == "lazy":
            correct_PS = ~likeliest_PS & (luck_PS < 0.5)
        else:
            correct_PS = torch.where(likeliest_PS, luck_PS < 0.9, luck_PS < 0.3)
        return cls(base, logp_PS, correct_PS)

    def law(self, objective: object) -> Tensor:
        return optimum(objective, self.base, self.correct_PS.double()).log()  # type: ignore[arg-type]

    def at_temperature(self, temperature: float) -> Tensor:
        return (
            TableLanguage(self.base.logits.detach() / temperature, self.base.prompts)
            .sequence_logprobs()
            .detach()
            .double()
        )

    def taught(self) -> Tensor:
        """Six times of ten a right response, else as the base."""
        right_PS = self.logp_PS.masked_fill(~self.correct_PS, -torch.inf).softmax(1)
        right_PS = torch.where(self.correct_PS.any(1, keepdim=True), right_PS, self.logp_PS.exp())
        return (0.6 * right_PS + 0.4 * self.logp_PS.exp()).log()

    def collapsed(self) -> Tensor:
        """Nearly always one and the same wrong response a problem."""
        wrong_PS = torch.where(self.correct_PS, -torch.inf, self.logp_PS)
        stuck_PS = (wrong_PS == wrong_PS.max(1, keepdim=True).values).double()
        return (0.97 * stuck_PS + 0.03 * self.logp_PS.exp()).log()

    def drawn(self, law_PS: Tensor, n: int, seed: int) -> tuple[list[Record], Tensor]:
        """n records a problem with log p under this law and the base, and which responses they are, [P, n]."""
        which_PN = torch.multinomial(law_PS.exp(), n, True, generator=torch.Generator().manual_seed(seed))
        lengths = [len(tokens) for tokens in self.base.sequences()]
        records = []
        for p, row in enumerate(which_PN.tolist()):
            for i, s in enumerate(row):
                right = bool(self.correct_PS[p, s])
                logp, ref_logp = law_PS[p, s].item(), self.logp_PS[p, s].item()
                answer, reason = ("right", "correct") if right else (str(s), "wrong")
                records.append(
                    Record("t", str(p), i, str(s), answer, float(right), reason, lengths[s], True, logp, ref_logp)  # type: ignore[arg-type]
                )
        return records, which_PN


@dataclass(frozen=True)
class Plant:
    """What is planted, where, and what must be found."""

    name: str
    kind: Kind
    truth: Outcome
    problems: int = PROBLEMS
    samples: int = SAMPLES

    def tuned(self, world: World) -> Tensor:
        return {
            "the base at temperature 0.4": lambda: world.at_temperature(0.4),
            "exactly p^4": lambda: world.law(tempered(4)),
            "sharpening, where it helps": lambda: world.law(sharpening()).clamp(min=-80),
            "task reward, where sharpening hurts": lambda: world.law(tilted(0.2)),
            "a capability that the base has not": world.taught,
            "a collapsed run": world.collapsed,
            "two identical models": lambda: world.logp_PS,
            "too few samples": lambda: world.law(tilted(2.0)),
        }[self.name]()


PLANTS = (
    Plant("the base at temperature 0.4", "helpful", "sharpening explains it"),
    Plant("exactly p^4", "helpful", "sharpening explains it"),
    Plant("sharpening, where it helps", "helpful", "sharpening explains it"),
    Plant("task reward, where sharpening hurts", "lazy", "beyond sharpening"),
    Plant("a capability that the base has not", "unsolved", "beyond sharpening", samples=128),
    Plant("a collapsed run", "helpful", "collapse"),
    Plant("two identical models", "helpful", "no gain"),
    Plant("too few samples", "helpful", "cannot tell", problems=10, samples=2),
)


def verdict(plant: Plant, seed: int, *, models: bool = True) -> Verdict:
    """With `models`, as `tiltlab verdict` has it that holds both models: base responses scored under the tuned one, and
    samples of p^2 and p^4. Without, records alone."""
    world = World.make(plant.kind, seed, plant.problems)
    law_PS = plant.tuned(world)
    base, which_PN = world.drawn(world.logp_PS, plant.samples, 3 * seed + 1)
    tuned, _ = world.drawn(law_PS, plant.samples, 3 * seed + 2)
    if not models:
        return judge(Evidence(base, tuned), seed=seed)
    powers = {f"power {alpha}": world.drawn(world.law(tempered(alpha)), plant.samples, 3 * seed)[0] for alpha in (2, 4)}
    cross: Sequence[float] = law_PS.gather(1, which_PN).clamp(min=-1e4).flatten().tolist()
    return judge(Evidence(base, tuned, cross, powers=powers), seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    print("| planted | truth | right, both models | right, records alone | else |")
    print("|---|---|---:|---:|---|")
    for plant in PLANTS:
        found = [
            Counter(verdict(plant, seed, models=models).outcome for seed in range(seeds)) for models in (True, False)
        ]
        right = [f"{count[plant.truth]} of {seeds}" for count in found]
        other = [f"{n} {outcome}" for count in found for outcome, n in count.items() if outcome != plant.truth]
        print(f"| {plant.name} | {plant.truth} | {right[0]} | {right[1]} | {', '.join(other) or '–'} |", flush=True)


if __name__ == "__main__":
    main()
