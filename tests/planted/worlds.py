"""Bases that plants are set in, each a mixture over P problems.

Wrong answers have an attractor, a mistake that most who err make: where errors are scattered, any vote is right, and no
gain is beyond it.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.special import expit, logit, logsumexp

from tests.planted.mixtures import RIGHT, Kind, Mixture

Shape = Literal["normal", "by length"]
MISTAKE = "mistake"
OTHERS = tuple(f"other {i}" for i in range(1, 7))
WORDINGS = 1e6


def long(
    generator: np.random.Generator,
    problems: int,
    spread: float,
    lead: float,
    shape: Shape = "normal",
    right: tuple[float, float] = (1, 3),
    mistake: float = 0.8,
) -> Mixture:
    """Responses of some 300 tokens. One of four is right, and four of five wrong ones make the one mistake.

    right: the share of right ones is Beta over problems.
    mistake: share of wrong ones that make it.
    spread: of log p within a problem, in nats.
    lead: by how many spreads right ones are likelier.
    shape: normal: log p is Normal among the right and among the wrong. by length: responses are short or long, short
        ones 2 spreads likelier, and where right ones are likelier it is since more of them are short.
    """
    accuracy_P = np.clip(generator.beta(*right, problems), 0.02, 0.9)
    spread_P = spread * generator.uniform(0.8, 1.2, problems)
    centre_P = -spread_P * generator.normal(12, 1, problems)
    share_A = np.array([mistake, *[(1 - mistake) / len(OTHERS)] * len(OTHERS)])
    log_share_PA = np.log(np.concatenate([accuracy_P[:, None], (1 - accuracy_P)[:, None] * share_A], 1))
    right_A = np.arange(log_share_PA.shape[1]) == 0
    answers = (RIGHT, MISTAKE, *OTHERS)
    if shape == "normal":
        kinds = tuple(Kind(answer) for answer in answers)
        mean_PJ = centre_P[:, None] + lead * spread_P[:, None] * right_A
        return Mixture(kinds, log_share_PA, mean_PJ, np.broadcast_to(spread_P[:, None], mean_PJ.shape))
    short_A = expit(logit(0.3) + 2 * lead * right_A)
    kinds = tuple(Kind(answer, tokens=tokens) for tokens in (200, 340) for answer in answers)
    log_share_PJ = np.concatenate([log_share_PA + np.log(short_A), log_share_PA + np.log1p(-short_A)], 1)
    mean_PJ = centre_P[:, None] + spread_P[:, None] * np.repeat([1.4, -0.6], len(answers))
    return Mixture(kinds, log_share_PJ, mean_PJ, np.broadcast_to(0.5 * spread_P[:, None], mean_PJ.shape))


def spread_answers(generator: np.random.Generator, problems: int) -> Mixture:
    """Half of all mass is right, in a million wordings; the likeliest response is wrong, with a fifth of the mass."""
    right_P, mistake_P = generator.uniform(0.42, 0.58, problems), generator.uniform(0.15, 0.25, problems)
    others_PA = (1 - right_P - mistake_P)[:, None] * generator.dirichlet([3] * len(OTHERS), problems)
    log_share_PJ = np.log(np.concatenate([right_P[:, None], mistake_P[:, None], others_PA], 1))
    wordings_J = np.array([WORDINGS, 1, *[1000] * len(OTHERS)])
    sd_J = np.where(wordings_J > 1, 1.0, 0.0)
    kinds = (Kind(RIGHT, tokens=40), Kind(MISTAKE, tokens=10), *(Kind(answer, tokens=30) for answer in OTHERS))
    return Mixture(kinds, log_share_PJ, log_share_PJ - np.log(wordings_J), np.broadcast_to(sd_J, log_share_PJ.shape))


def long_spread_answers(generator: np.random.Generator, problems: int, spread: float = 25.0) -> Mixture:
    """Likewise at real lengths: half is right, and right ones are 0.8 spreads less likely than wrong ones."""
    short = spread_answers(generator, problems)
    centre_P = -spread * generator.normal(12, 1, problems)
    mean_PJ = centre_P[:, None] - 0.8 * spread * short.right_J
    kinds = tuple(Kind(kind.answer) for kind in short.kinds)
    return Mixture(kinds, short.log_share_PJ, mean_PJ, np.full(mean_PJ.shape, spread))


def both_help(generator: np.random.Generator, problems: int) -> Mixture:
    """The right answer is the most frequent, with some two fifths, and its wordings are the likelier ones."""
    right_P = generator.uniform(0.3, 0.45, problems)
    others_PA = (1 - right_P)[:, None] * generator.dirichlet([2] * (1 + len(OTHERS)), problems)
    log_share_PJ = np.log(np.concatenate([right_P[:, None], others_PA], 1))
    kinds = tuple(Kind(answer, tokens=30) for answer in (RIGHT, MISTAKE, *OTHERS))
    mean_PJ = np.full(log_share_PJ.shape, -14.0)
    mean_PJ[:, 0] += 1.0
    return Mixture(kinds, log_share_PJ, mean_PJ, np.ones_like(mean_PJ))


def neither_helps(generator: np.random.Generator, problems: int) -> Mixture:
    """Short responses; most who err make the one mistake, and it is likelier than what is right."""
    world = long(generator, problems, spread=2.0, lead=-0.5)
    return replace(world, kinds=tuple(replace(kind, tokens=30) for kind in world.kinds))


def without_box(generator: np.random.Generator, problems: int) -> Mixture:
    """Four of five say what is right, and half leave the box out (from problem to problem by Beta(5, 5))."""
    said = _four_of_five(generator, problems)
    return _lost(said, tuple(Kind(None, said=kind.answer) for kind in said.kinds), generator)


def without_end(generator: np.random.Generator, problems: int) -> Mixture:
    """Likewise, and half run into the limit of 512 tokens; log p is that of the prefix."""
    said = _four_of_five(generator, problems)
    cut = _lost(said, tuple(Kind(None, complete=False, tokens=512) for _ in said.kinds), generator)
    mean_PJ = cut.mean_PJ.copy()
    mean_PJ[:, len(said.kinds) :] -= 60
    return replace(cut, mean_PJ=mean_PJ)


def long_without_box(generator: np.random.Generator, problems: int) -> Mixture:
    """`long` at a spread of 25, of which half leave the box out."""
    said = long(generator, problems, 25.0, 0.2)
    return _lost(said, tuple(Kind(None, said=kind.answer) for kind in said.kinds), generator)


def _four_of_five(generator: np.random.Generator, problems: int) -> Mixture:
    right_P = np.clip(generator.beta(4, 1, problems), 0.02, 0.98)
    share_A = np.array([0.6, *[0.4 / len(OTHERS)] * len(OTHERS)])
    log_share_PJ = np.log(np.concatenate([right_P[:, None], (1 - right_P)[:, None] * share_A], 1))
    mean_PJ = np.repeat(-25 * generator.normal(12, 1, (problems, 1)), log_share_PJ.shape[1], axis=1)
    return Mixture(
        tuple(Kind(answer) for answer in (RIGHT, MISTAKE, *OTHERS)), log_share_PJ, mean_PJ, np.full(mean_PJ.shape, 25.0)
    )


def _lost(said: Mixture, lost: tuple[Kind, ...], generator: np.random.Generator) -> Mixture:
    """Half of each kind, more or less by problem, is of the kind that stands for it in `lost`."""
    lost_P = np.clip(generator.beta(5, 5, len(said.mean_PJ)), 0.05, 0.95)[:, None]
    log_share_PJ = np.concatenate([said.log_share_PJ + np.log1p(-lost_P), said.log_share_PJ + np.log(lost_P)], 1)
    log_share_PJ -= logsumexp(log_share_PJ, axis=1, keepdims=True)
    return Mixture((*said.kinds, *lost), log_share_PJ, np.tile(said.mean_PJ, 2), np.tile(said.sd_PJ, 2))
