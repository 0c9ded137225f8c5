"""Responses that never repeat: each is of one of a few kinds, and log p is Normal within a kind. Nothing is enumerated.

Every reweighting that a plant needs (p^alpha, answers sharpened, a reward, what is taught) is such a mixture again, or
the likeliest of k, so log-probabilities under both models are exact at any length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logit, logsumexp

from tiltlab.types import Reason, Record

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

RIGHT = "right"
"""The gold answer of every problem."""

SAID = "The answer is "


@dataclass(frozen=True)
class Kind:
    """answer: in the box; None for none. said: outside of it, read by whoever looks there. complete: whether such
    responses end. tokens: their mean length."""

    answer: str | None
    said: str | None = None
    complete: bool = True
    tokens: float = 300.0

    @property
    def text(self) -> str:
        if self.answer is not None:
            return f"\\boxed{{{self.answer}}}"
        return f"{SAID}{self.said}" if self.said else "First,"


@dataclass(frozen=True)
class Responses:
    """n responses to each of P problems: of which kind, and log p under the base, in nats. Both [P, N]."""

    kind_PN: Ints
    logp_PN: Floats


class Distribution(Protocol):
    """Over responses to P problems."""

    def sample(self, n: int, generator: np.random.Generator) -> Responses:
        """n responses to each problem, independent."""

    def log_density(self, responses: Responses) -> Floats:
        """Of kind and log p, [P, N]: what two distributions give a response differs as these do."""


@dataclass(frozen=True)
class Mixture:
    """Responses to P problems, of J kinds.

    kinds: [J]. log_share_PJ: log mass of each kind. mean_PJ, sd_PJ: of log p under the base within a kind, in nats; an
    sd of 0 is a single response.
    """

    kinds: tuple[Kind, ...]
    log_share_PJ: Floats
    mean_PJ: Floats
    sd_PJ: Floats

    def sample(self, n: int, generator: np.random.Generator) -> Responses:
        edges_PJ = np.exp(self.log_share_PJ).cumsum(1)
        luck_PN = generator.random((len(edges_PJ), n)) * edges_PJ[:, -1:]
        kind_PN = (luck_PN[:, :, None] >= edges_PJ[:, None, :-1]).sum(-1)
        mean_PN, sd_PN = (np.take_along_axis(of, kind_PN, 1) for of in (self.mean_PJ, self.sd_PJ))
        return Responses(kind_PN, mean_PN + sd_PN * generator.normal(size=kind_PN.shape))

    def log_density(self, responses: Responses) -> Floats:
        share, mean, sd = (
            np.take_along_axis(of, responses.kind_PN, 1) for of in (self.log_share_PJ, self.mean_PJ, self.sd_PJ)
        )
        sd = np.maximum(sd, 1e-9)
        density: Floats = share - 0.5 * ((responses.logp_PN - mean) / sd) ** 2 - np.log(sd)
        return density

    def log_tail_below(self, logp_PN: Floats) -> Floats:
        """log of the chance that a response is less likely than this, [P, N]."""
        z_PNJ = (logp_PN[..., None] - self.mean_PJ[:, None]) / np.maximum(self.sd_PJ, 1e-9)[:, None]
        below: Floats = logsumexp(self.log_share_PJ[:, None] + log_ndtr(z_PNJ), axis=-1)
        return below

    # Reweighted

    def times(self, log_factor: Floats) -> "Mixture":
        """Each kind as much likelier, [J] or [P, J]; what is within a kind stays."""
        log_share_PJ = self.log_share_PJ + log_factor
        return replace(self, log_share_PJ=log_share_PJ - logsumexp(log_share_PJ, axis=1, keepdims=True))

    def power(self, alpha: float) -> "Mixture":
        """p^alpha / Z."""
        rise = (alpha - 1) * self.sd_PJ**2
        gain_PJ = (alpha - 1) * (self.mean_PJ + rise / 2)
        return replace(self.times(gain_PJ), mean_PJ=self.mean_PJ + rise)

    def likelier(self, nats: float, width: float = 1.0) -> "Mixture":
        """Within each kind log p higher by so much, and its spread so many times as wide; as many of each kind."""
        return replace(self, mean_PJ=self.mean_PJ + nats, sd_PJ=width * self.sd_PJ)

    def answers_to(self, mass_PA: Floats) -> "Mixture":
        """Each answer's mass as given, in the order of `answers`, and the wordings of each as they are."""
        with np.errstate(divide="ignore"):
            return self.times(np.log(mass_PA)[:, self._answer_J()] - self.log_answer_PJ())

    def taught(self, right_P: Floats) -> "Mixture":
        """So much mass on right answers; right ones, and the others, in proportion as they are."""
        log_odds_P = logit(right_P) - logit(self.accuracy_P())
        return self.times(np.where(self.right_J, log_odds_P[:, None], 0.0))

    def formed(self, missing: float) -> "Mixture":
        """Only so much of it without an answer or without an end; the others in proportion as they are."""
        lost_J = np.array([kind.answer is None for kind in self.kinds])
        log_odds_P = logit(missing) - logit(np.exp(self.log_share_PJ[:, lost_J]).sum(1))
        return self.times(np.where(lost_J, log_odds_P[:, None], 0.0))

    # What it comes to

    @property
    def answers(self) -> list[str | None]:
        return list(dict.fromkeys(kind.answer for kind in self.kinds))

    def _answer_J(self) -> Ints:
        return np.array([self.answers.index(kind.answer) for kind in self.kinds])

    @property
    def right_J(self) -> NDArray[np.bool_]:
        return np.array([kind.answer == RIGHT for kind in self.kinds])

    def log_mass_PA(self) -> Floats:
        """log mass of each answer, in the order of `answers`, [P, A]."""
        answer_J = self._answer_J()
        return np.stack([logsumexp(self.log_share_PJ[:, answer_J == a], axis=1) for a in range(answer_J.max() + 1)], 1)

    def log_answer_PJ(self) -> Floats:
        """log mass of the answer that each kind gives, [P, J]."""
        log_answer_PJ: Floats = self.log_mass_PA()[:, self._answer_J()]
        return log_answer_PJ

    def accuracy_P(self) -> Floats:
        share: Floats = np.exp(self.log_share_PJ[:, self.right_J]).sum(1)
        return share


@dataclass(frozen=True)
class LikeliestOf:
    """The likeliest of k responses of the base (no ties: of kinds with an sd)."""

    base: Mixture
    k: int

    def sample(self, n: int, generator: np.random.Generator) -> Responses:
        drawn = self.base.sample(n * self.k, generator)
        kind_PNK, logp_PNK = (of.reshape(len(of), n, self.k) for of in (drawn.kind_PN, drawn.logp_PN))
        first = logp_PNK.argmax(-1)[..., None]
        kind_PN, logp_PN = (np.take_along_axis(of, first, -1)[..., 0] for of in (kind_PNK, logp_PNK))
        return Responses(kind_PN.astype(np.intp), logp_PN.astype(float))

    def log_density(self, responses: Responses) -> Floats:
        below_PN = self.base.log_tail_below(responses.logp_PN)
        density: Floats = self.base.log_density(responses) + np.log(self.k) + (self.k - 1) * below_PN
        return density


def vote(base: Mixture, k: int, generator: np.random.Generator, votes: int = 20000) -> Mixture:
    """One response, among k of the base, of those with the most frequent answer; ties go to either. The chance of each
    answer is that among so many votes."""
    mass_PA = np.exp(base.log_mass_PA())
    won_PA = np.zeros_like(mass_PA)
    for p, mass_A in enumerate(mass_PA):
        counts_VA = generator.multinomial(k, mass_A / mass_A.sum(), size=votes)
        ties_VA = 0.5 * generator.random(counts_VA.shape)
        won_PA[p] = np.bincount((counts_VA + ties_VA).argmax(1), minlength=len(mass_A)) / votes
    return base.answers_to(won_PA)


def records(
    responses: Responses, kinds: Sequence[Kind], log_pi_PN: Floats, generator: np.random.Generator
) -> list[Record]:
    """As an evaluation writes them, problem by problem. log_pi_PN: log-probability under the model that drew them."""
    centre_P = responses.logp_PN.mean(1, keepdims=True)
    noise_PN = generator.normal(size=responses.logp_PN.shape)
    # Longer ones are less likely, a token costing a nat and more.
    more_PN = 40 * noise_PN - 0.6 * np.clip(responses.logp_PN - centre_P, -150, 150)
    made = []
    for p, row in enumerate(zip(responses.kind_PN, responses.logp_PN, log_pi_PN, more_PN, strict=True)):
        for i, (j, logp, log_pi, more) in enumerate(zip(*(of.tolist() for of in row), strict=True)):
            kind = kinds[j]
            tokens = max(5, round(kind.tokens + (more if kind.complete else 0)))
            reason, text = _reason(kind.answer), f"{kind.text} ({logp:.6f})"
            reward = float(reason == "correct")
            made.append(Record("t", str(p), i, text, kind.answer, reward, reason, tokens, kind.complete, log_pi, logp))
    return made


def read_leniently(record: Record) -> Record:
    """Graded anew by whoever looks for an answer outside of the box too."""
    if record.answer is not None or not record.text.startswith(SAID):
        return record
    answer = record.text.removeprefix(SAID).rsplit(" (", 1)[0]
    reason = _reason(answer)
    return replace(record, answer=answer, reason=reason, reward=float(reason == "correct"))


def _reason(answer: str | None) -> Reason:
    return "no_answer" if answer is None else "correct" if answer == RIGHT else "wrong"
