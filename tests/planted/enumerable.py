"""Languages that can be enumerated, and models made of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tiltlab.models.table import TableLanguage, optimum
from tiltlab.objective import sharpening, tempered, tilted
from tiltlab.types import Record

Kind = Literal["helpful", "lazy", "unsolved"]


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

    def distribution(self, objective: object) -> Tensor:
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

    def drawn(self, log_pi_PS: Tensor, n: int, seed: int) -> tuple[list[Record], Tensor]:
        """n records a problem with log p under this distribution and the base, and which responses they are, [P, n]."""
        which_PN = torch.multinomial(log_pi_PS.exp(), n, True, generator=torch.Generator().manual_seed(seed))
        lengths = [len(tokens) for tokens in self.base.sequences()]
        records = []
        for p, row in enumerate(which_PN.tolist()):
            for i, s in enumerate(row):
                right = bool(self.correct_PS[p, s])
                logp, ref_logp = log_pi_PS[p, s].item(), self.logp_PS[p, s].item()
                answer, reason = ("right", "correct") if right else (str(s), "wrong")
                records.append(
                    Record("t", str(p), i, str(s), answer, float(right), reason, lengths[s], True, logp, ref_logp)  # type: ignore[arg-type]
                )
        return records, which_PN


TUNED: Mapping[str, Callable[[World], Tensor]] = {
    "the base at temperature 0.4": lambda world: world.at_temperature(0.4),
    "exactly p^4": lambda world: world.distribution(tempered(4)),
    "sharpening, where it helps": lambda world: world.distribution(sharpening()).clamp(min=-80),
    "task reward, where sharpening hurts": lambda world: world.distribution(tilted(0.2)),
    "a capability that the base has not": World.taught,
    "a collapsed run": World.collapsed,
    "two identical models": lambda world: world.logp_PS,
    "too few samples": lambda world: world.distribution(tilted(2.0)),
}
"""By name, log-probabilities of a model that is made of the base, [P, S]."""
