"""What an update owes to responses that were drawn from a distribution q that is not quite the trained pi.

    grad J = E_q[ w(y) (R(y) - b) grad log pi(y) ],   w(y) = pi(y) / q(y)

over the whole response. The leave-one-out baseline b is made of other draws, so it stays as it is. A cap makes the
variance finite and w biased, by what lies beyond it.

q is whoever drew: another engine, or the trained model itself, of which rounding makes a q too.

Left out on purpose: dropping responses beyond the cap. It is far more biased than counting them at the cap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import ClassVar, Literal

import torch
from torch import Tensor

from tiltlab.models.base import TokenLogprobs
from tiltlab.types import Rollout


@dataclass(frozen=True)
class Correction:
    """How the update is weighted for what drew its responses.

    over: "response", pi / q of the whole response, which is exact; "token", of each token by itself, which leaves most
        of the bias of a reward on whole responses and is an ablation; "nothing", every weight 1.
    cap: the largest weight; infinity for none, which is unbiased.

    Raises ValueError for a cap below 1, by which a response that is as likely as it was would count less than once.
    """

    over: Literal["response", "token", "nothing"] = "response"
    cap: float = 2.0
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.cap >= 1:  # NaN is not
            raise ValueError(f"cap must be 1 or more (.inf for none), got {self.cap}")

    def weights(self, log_ratio_PGT: Tensor) -> Tensor:
        """Weights of the tokens' log pi in the update: float32, [P, G, T] or [P, G, 1], without gradients.

        log_ratio_PGT: `log_ratio`.
        """
        return self._logs(log_ratio_PGT).exp().clamp(max=self.cap).float()

    def capped(self, log_ratio_PGT: Tensor, mask_PGT: Tensor) -> Tensor:
        """Whether each weight lay beyond the cap: bool [K], one a response, or a token where each has its own.

        mask_PGT: bool [P, G, T], the tokens that count.
        """
        counts = mask_PGT if self.over == "token" else mask_PGT.any(-1, keepdim=True)
        return (self._logs(log_ratio_PGT) > log(self.cap))[counts]

    def _logs(self, log_ratio_PGT: Tensor) -> Tensor:
        match self.over:
            case "token":
                return log_ratio_PGT.double()
            case "response":
                return log_ratio_PGT.sum(-1, keepdim=True, dtype=torch.float64)
        return torch.zeros_like(log_ratio_PGT[..., :1], dtype=torch.float64)


NOTHING = Correction("nothing")
"""For a policy that draws by itself."""


def log_ratio(current: TokenLogprobs, rollouts_PG: Sequence[Sequence[Rollout]]) -> Tensor:
    """log pi - log q of every token: float32 [P, G, T], nats, 0 beyond the end of a response, without gradients.

    current: log pi, by the trainer's own forward.
    rollouts_PG: `[P][G]`, the same responses with log q, as it was when they were drawn.
    """
    log_q = torch.zeros_like(current.token_PGT)
    drawn = [value for group in rollouts_PG for rollout in group for value in rollout.logprobs]
    log_q[current.mask_PGT] = torch.tensor(drawn, dtype=log_q.dtype, device=log_q.device)
    return torch.where(current.mask_PGT, current.token_PGT.detach() - log_q, 0.0)


def effective_share(log_weights_N: Tensor) -> float:
    """The effective sample size (sum w)^2 / sum w^2, as a share of the samples; NaN where there are none.

    log_weights_N: float64 [N], nats.
    """
    if not len(log_weights_N):
        return float("nan")
    once, twice = torch.logsumexp(log_weights_N, 0), torch.logsumexp(2 * log_weights_N, 0)
    return min(1.0, exp((2 * once - twice).item()) / len(log_weights_N))  # rounding may pass it
