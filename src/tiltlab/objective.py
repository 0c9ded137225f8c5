"""One objective for every regime of arXiv 2604.16259; training and sampling both read it here.

    J(pi) = E_pi[ w r(x, y) + s l(y) ] - beta KL(pi || p),        l(y) = log p(y | x)

p is the frozen reference, l is summed over the response's tokens (EOS included), and for beta > 0 the optimum is
pi* proportional to p exp((w r + s l) / beta). A regime is a value of (w, s, beta), never a branch.

Left out on purpose: clipped, absolute or k3 forms of the KL, and scaling by a group's spread. They move the optimum.
Only + - * / and ** are used, so floats, numpy arrays and torch tensors pass through unchanged in kind.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Array = Any
"""A float, a numpy array or a torch tensor; one call uses one kind."""

Length = Literal["sum", "mean"] | float
"""How the sharpening term l is normalised: "sum" (the only one whose optimum is p^alpha), "mean", or a number omega for
l / length**omega."""


class Terms(NamedTuple):
    """The three parts of a response's score R, which is their plain sum.

    reward: w r.
    sharpen: s l.
    kl: beta (l - log pi), whose mean is -beta KL.
    """

    reward: Array
    sharpen: Array
    kl: Array


@dataclass(frozen=True)
class Objective:
    """The weights of J.

    reward: w, of the reward.
    sharpen: s, of the log-likelihood under the reference.
    kl: beta, of the KL to the reference; not negative.
    length: how the sharpening term is normalised. Other than "sum" it is the paper's ablation, whose optimum is no
        longer p^alpha.

    Raises ValueError for weights that are not finite, a negative beta, or a J that is zero everywhere.
    """

    reward: float = 0.0
    sharpen: float = 0.0
    kl: float = 0.0
    length: Length = "sum"

    def __post_init__(self) -> None:
        weights = {"reward": self.reward, "sharpen": self.sharpen, "kl": self.kl}
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"objective weight {name} must be finite, got {weight}")
        if self.kl < 0:
            raise ValueError(f"beta (the weight of the KL) must not be negative, got {self.kl}")
        if not any(weights.values()):
            raise ValueError("an objective needs at least one weight that is not zero")
        if isinstance(self.length, str) and self.length not in ("sum", "mean"):
            raise ValueError(f'length must be "sum", "mean" or a number (omega), got {self.length!r}')

    def terms(self, reward: Array, ref_logp: Array, policy_logp: Array, tokens: Array = 1) -> Terms:
        """The parts of the whole-sequence reward R = w r + s l + beta (l - log pi).

        Shapes are all alike, usually [P, G].

        reward: r, NaN where nobody knows.
        ref_logp: l, the sum over the response's tokens of log p, in nats.
        policy_logp: log pi, likewise. Must be detached: its own gradient has mean zero, so R has none.
        tokens: of the response; only matters where `length` is not "sum".

        A term of weight zero is 0.0 whatever its inputs, NaN included.
        """
        return Terms(
            _weighed(self.reward, reward),
            _weighed(self.sharpen, self._per_length(ref_logp, tokens)),
            _weighed(self.kl, ref_logp - policy_logp),
        )

    def score(self, reward: Array, ref_logp: Array, policy_logp: Array, tokens: Array = 1) -> Array:
        """R, the quantity whose expectation under pi is J.

        reward, ref_logp, policy_logp, tokens: as in `terms`.
        """
        return sum(self.terms(reward, ref_logp, policy_logp, tokens))

    def log_target(self, reward: Array, logp: Array, tokens: Array = 1) -> Array:
        """log of the optimum, up to its normalising constant: l + (w r + s l) / beta.

        reward: r.
        logp: l, the sum over the response's tokens of log p under the reference, in nats.
        tokens: of the response; only matters where `length` is not "sum".

        Raises ValueError for beta = 0, where any distribution on the argmax is an optimum, and below, where any one
        response is.
        """
        if self.kl == 0:
            raise ValueError("with beta = 0 the optimum has no density: all mass sits on the argmax of w r + s l")
        if self.kl < 0:
            raise ValueError(
                "entropy minimisation has no optimum with a density: J is highest where one response has all mass, "
                "whichever it is"
            )
        gain = _weighed(self.reward, reward) + _weighed(self.sharpen, self._per_length(logp, tokens))
        return logp + gain / self.kl

    def _per_length(self, logp: Array, tokens: Array) -> Array:
        omega = 0.0 if self.length == "sum" else 1.0 if self.length == "mean" else self.length
        return logp / tokens**omega if omega else logp


def task_reward() -> Objective:
    """max E[r]: any distribution on the argmax of the reward."""
    return Objective(reward=1)


def sharpening(length: Length = "sum") -> Objective:
    """max E[l]: all mass on the reference's most likely response.

    length: how l is normalised.
    """
    return Objective(sharpen=1, length=length)


def tempered(alpha: float, length: Length = "sum") -> Objective:
    """p^alpha / Z. alpha = 1 is the null control: its optimum is the reference itself.

    length: how l is normalised; the optimum is p^alpha only for "sum".
    """
    return Objective(sharpen=alpha - 1, kl=1, length=length)


def tilted(beta: float, alpha: float = 1, length: Length = "sum") -> Objective:
    """p^alpha exp(r / beta) / Z.

    beta: weight of the KL, above 0.
    alpha: exponent of p; 1 leaves the likelihood out.
    length: how l is normalised; the exponent of p is alpha only for "sum".

    Raises ValueError unless beta > 0: for beta = 0 see `task_reward`.
    """
    if not beta > 0:
        raise ValueError(f"tilted needs beta > 0, got {beta}; for beta = 0 use task_reward, where alpha has no meaning")
    return Objective(reward=1, sharpen=beta * (alpha - 1), kl=beta, length=length)


@dataclass(frozen=True)
class EntropyMinimization(Objective):
    """J = weight E_pi[log pi]: w = 0, s = weight, beta = -weight. Made by `entropy_minimization`; the only objective
    with a negative beta."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sharpen) and self.sharpen == -self.kl > 0):
            raise ValueError(
                f"the weight of entropy minimisation must be finite and above 0, got {self.sharpen}; a negative one "
                "would maximise the entropy"
            )


def entropy_minimization(weight: float = 1.0) -> EntropyMinimization:
    """max weight E[log pi], the negative entropy of responses (EM-RL, arXiv 2505.15134, 2025), without a reference: on
    which response it ends is up to the start and to chance. Raises ValueError unless weight > 0."""
    return EntropyMinimization(sharpen=weight, kl=-weight)


def from_paper(
    alpha: float, beta_inv: float, mode: Literal["sampling", "optimization"], length: Length = "sum"
) -> Objective:
    """The regime that the paper's public code calls (alpha, beta_inv, mode, normalization).

    alpha: exponent of p.
    beta_inv: 1 / beta; 0 leaves the reward out.
    mode: "sampling" or "optimization"; ValueError for any other.
    length: how l is normalised.

    "sampling" keeps the entropy term: (alpha, 0) is tempered, (alpha, 1 / beta) is tilted. "optimization" drops it:
    (1, 0) is sharpening, (0, 1) is task reward. Its rewards are ours divided by beta where beta > 0, so the optimum is
    the same and only the scale of the gradient differs.
    """
    if mode == "optimization":
        return Objective(reward=beta_inv, sharpen=alpha, length=length)
    if mode == "sampling":
        return tilted(1 / beta_inv, alpha, length) if beta_inv else tempered(alpha, length)
    raise ValueError(f'mode must be "sampling" or "optimization", got {mode!r}')


def _weighed(weight: float, value: Array) -> Array:
    # 0 * NaN is NaN: a regime that does not use the reward must not lose a response for want of one.
    return weight * value if weight else 0.0
