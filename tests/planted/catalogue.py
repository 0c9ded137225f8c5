"""All plants: 8 on languages that can be enumerated, 26 at real lengths, 5 on answers, 3 on form."""

from functools import partial

import numpy as np

from tests.planted import worlds
from tests.planted.enumerable import Kind as Language
from tests.planted.mixtures import LikeliestOf, Mixture, vote
from tests.planted.plants import Base, Parts, Plant, Tuned, enumerable, mixture
from tests.planted.worlds import Shape
from tiltlab.verdict.verdict import Outcome

NOT_TAUGHT = Parts(form=0.0, taught=0.0)
HALF_TAUGHT = Parts(form=0.0, sharpened=0.0, taught=0.375)


def _language(name: str, kind: Language, truth: Outcome, problems: int = 150, n: int = 32) -> Plant:
    return Plant(name, truth, partial(enumerable, name, kind, problems=problems, n=n))


def _plant(
    name: str,
    truth: Outcome,
    base: Base,
    tuned: Tuned,
    parts: Parts,
    *,
    alphas: tuple[float, ...] = (2, 4),
    problems: int = 90,
    n: int = 64,
    alone: Outcome | None = None,
) -> Plant:
    return Plant(name, truth, partial(mixture, name, base, tuned, alphas, problems=problems, n=n), parts, alone)


# Tuned models


def _taught(nats: float = 0.0, width: float = 1.0) -> Tuned:
    """Of what was wrong on a problem half is right now; and all is likelier by so many nats, and less or more alike."""
    return lambda base, _: base.taught((1 + base.accuracy_P()) / 2).likelier(nats, width)


def _sharpened(alpha: float = 1.0, g: float = 1.0) -> Tuned:
    """p^alpha P(a)^(g - 1) / Z."""
    return lambda base, _: base.power(alpha).times((g - 1) * base.log_answer_PJ())


def _formed(base: Mixture, _: np.random.Generator) -> Mixture:
    """Nearly always ends, and answers where it is read; else the base."""
    return base.formed(1e-3)


def _formed_and_taught(base: Mixture, generator: np.random.Generator) -> Mixture:
    formed = _formed(base, generator)
    return formed.taught((1 + formed.accuracy_P()) / 2)


# Plants


LANGUAGES = (
    _language("the base at temperature 0.4", "helpful", "sharpening explains it"),
    _language("exactly p^4", "helpful", "sharpening explains it"),
    _language("sharpening, where it helps", "helpful", "sharpening explains it"),
    _language("task reward, where sharpening hurts", "lazy", "beyond sharpening"),
    _language("a capability that the base has not", "unsolved", "beyond sharpening", n=128),
    _language("a collapsed run", "helpful", "collapse"),
    _language("two identical models", "helpful", "no gain"),
    _language("too few samples", "helpful", "cannot tell", problems=10, n=2),
)


def _at_length(spread: float, shape: Shape = "normal") -> tuple[Plant, ...]:
    """Log p of a response spreads over so many nats; samplers reach 1, 2 and 4 spreads."""

    def plant(
        name: str, truth: Outcome, lead: float, tuned: Tuned, parts: Parts, alone: Outcome | None = None
    ) -> Plant:
        base = partial(worlds.long, spread=spread, lead=lead, shape=shape)
        alphas = tuple(1 + reach / spread for reach in (1, 2, 4))
        where = f"spread {spread:g}" + ("" if shape == "normal" else f", {shape}")
        return _plant(f"{where}: {name}", truth, base, tuned, parts, alphas=alphas, alone=alone)

    plants = (
        plant("taught, likelier by 1.8 spreads", "beyond sharpening", 0.2, _taught(1.8 * spread), Parts(form=0.0)),
        plant("taught, as likely", "beyond sharpening", 0.0, _taught(), HALF_TAUGHT),
        plant("best of 8 by log p", "sharpening explains it", 0.8, lambda base, _: LikeliestOf(base, 8), NOT_TAUGHT),
        plant("p^1.04, right ones likelier", "sharpening explains it", 0.8, _sharpened(1.04), NOT_TAUGHT),
        plant("p^1.04, wrong ones likelier", "collapse", -0.8, _sharpened(1.04), Parts(form=0.0)),
    )
    far = (
        plant(
            "taught, likelier by 3 spreads", "beyond sharpening", 0.0, _taught(3 * spread), HALF_TAUGHT, "cannot tell"
        ),
        plant("taught, likelier by 5 spreads", "cannot tell", 0.0, _taught(5 * spread, 0.5), HALF_TAUGHT),
    )
    return plants if shape == "by length" else (*plants, *far)


LENGTHS = (*_at_length(15), *_at_length(25), *_at_length(40), *_at_length(25, "by length"))

ANSWERS = (
    _plant(
        "answers g = 4, likelihood hurts",
        "sharpening explains it",
        worlds.spread_answers,
        _sharpened(g=4),
        NOT_TAUGHT,
    ),
    _plant(
        "answers g = 4, likelihood hurts, spread 25",
        "sharpening explains it",
        worlds.long_spread_answers,
        _sharpened(g=4),
        NOT_TAUGHT,
        alphas=(1.04, 1.08),
    ),
    _plant(
        "vote of 16, likelihood hurts",
        "sharpening explains it",
        worlds.spread_answers,
        lambda base, generator: vote(base, 16, generator),
        NOT_TAUGHT,
    ),
    _plant("p^2 and answers g = 2", "sharpening explains it", worlds.both_help, _sharpened(2, 2), NOT_TAUGHT),
    _plant("reward, voting hurts too", "beyond sharpening", worlds.neither_helps, _taught(), HALF_TAUGHT),
)

_LENGTH = (1.04, 1.08, 1.16)

FORM = (
    _plant(
        "only the format learnt",
        "form explains it",
        worlds.without_box,
        _formed,
        Parts(form=0.4, sharpened=0.0, taught=0.0),
        alphas=_LENGTH,
        problems=80,
        n=32,
    ),
    _plant(
        "only ending learnt",
        "form explains it",
        worlds.without_end,
        _formed,
        Parts(form=0.4, sharpened=0.0, taught=0.0),
        alphas=_LENGTH,
        problems=80,
        n=32,
    ),
    _plant(
        "the format learnt, and taught",
        "beyond sharpening",
        worlds.long_without_box,
        _formed_and_taught,
        Parts(form=0.125, sharpened=None, taught=None),
        alphas=_LENGTH,
    ),
)

PLANTS = (*LANGUAGES, *LENGTHS, *ANSWERS, *FORM)
