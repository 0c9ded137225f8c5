"""Answer power against its distribution, on languages whose responses can all be listed."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.samplers.enumerated import LANGUAGES, LIMIT
from tests.tolerances import share_tolerance, tv_tolerance
from tiltlab.models.table import TableLanguage, counts, total_variation
from tiltlab.samplers.answer_power import AnswerPower
from tiltlab.types import Grade, Rollout

DRAWS = 12_000
"""Honest noise is near .01 in total variation over 15 responses."""


def spread() -> TableLanguage:
    """The likeliest response, `a`, is wrong; `b` is answered in many wordings and has more mass."""
    logits = torch.zeros(1, 15, 3)
    logits[:, 0] = torch.tensor([0.4, 0.55, 0.05]).log()
    logits[:, 1] = torch.tensor([0.05, 0.05, 0.9]).log()
    logits[:, 2] = torch.tensor([0.45, 0.45, 0.1]).log()
    return TableLanguage(logits)


ALL = LANGUAGES | {"spread": spread()}


def answer(text: str) -> str | None:
    """The first symbol; the empty response has none."""
    return text[:1] or None


def grade(_: Sequence[int], rollouts: Sequence[Rollout]) -> list[Grade]:
    return [Grade(0.0, answer(rollout.text), "wrong") for rollout in rollouts]


def target(language: TableLanguage, g: int, longest: int = LIMIT) -> Tensor:
    """p(y) P(a(y))^(g - 1) / Z over responses of at most `longest` tokens that have an answer; p where g is 1."""
    responses = language.enumerated()[0]
    p = language.sequence_logprobs()[0].detach().double().exp()
    if g == 1:
        return p / p.sum()
    answers = [answer(r.text) if len(r.tokens) <= longest else None for r in responses]
    share = {a: sum(float(p[i]) for i, b in enumerate(answers) if b == a) for a in set(answers)}
    weight = torch.tensor([float(p[i]) * share[a] ** (g - 1) if a else 0.0 for i, a in enumerate(answers)])
    return (weight / weight.sum()).double()


@pytest.mark.parametrize(
    ("g", "name"),
    [
        (1, "random 0"),
        *[(2, name) for name in ALL],
        (4, "spread"),
        pytest.param(4, "short mode", marks=pytest.mark.slow),  # few groups agree, so that many are drawn
    ],
)
def test_it_hits_its_distribution(g: int, name: str) -> None:
    language = ALL[name]
    found = AnswerPower(g, budget=200)(language, [""], n=DRAWS, max_tokens=LIMIT, seed=1, grade_fn=grade)
    exact = target(language, g)
    distance = total_variation(counts(language, found.rollouts[0]) / DRAWS, exact).item()
    assert distance <= 0.02
    assert distance < tv_tolerance(exact, DRAWS)
    assert found.info.warnings == ()
    assert found.info.notes["gave_up"] == [0]


def test_one_draw_says_nothing_of_the_next() -> None:
    """Groups share no response: pairs of neighbours have the product of their distributions."""
    language, n = LANGUAGES["random 0"], DRAWS
    found = AnswerPower(2)(language, [""], n=n, max_tokens=LIMIT, seed=2, grade_fn=grade).rollouts[0]
    which = {tokens: i for i, tokens in enumerate(language.sequences())}
    left, right = (torch.tensor([which[r.tokens] for r in found[start::2]]) for start in (0, 1))
    joint = torch.bincount(left * len(which) + right, minlength=len(which) ** 2) / len(left)
    exact = target(language, 2)
    product = (exact[:, None] * exact).flatten()
    assert total_variation(joint, product).item() < tv_tolerance(product, len(left))


def test_a_limit_leaves_the_distribution_of_complete_responses() -> None:
    language = LANGUAGES["random 1"]
    exact = target(language, 2, longest=2)
    found = AnswerPower(2, budget=400)(language, [""], n=4000, max_tokens=2, seed=3, grade_fn=grade).rollouts[0]
    assert total_variation(counts(language, found) / 4000, exact).item() < tv_tolerance(exact, 4000)


def test_acceptance_is_the_chance_that_a_group_agrees() -> None:
    language = ALL["spread"]
    notes = AnswerPower(3)(language, [""], n=4000, max_tokens=LIMIT, seed=4, grade_fn=grade).info.notes
    p = language.sequence_logprobs()[0].detach().exp()
    answers = [answer(r.text) for r in language.enumerated()[0]]
    mass = [sum(p[i].item() for i, a in enumerate(answers) if a == wanted) for wanted in ("a", "b")]
    agree = sum((m / sum(mass)) ** 3 for m in mass)
    assert abs(notes["acceptance"][0] - agree) < share_tolerance(agree, 4000)
    assert abs(notes["answered"][0] - sum(mass)) < share_tolerance(sum(mass), 4000)


def test_prompts_need_different_numbers_of_batches_and_get_the_same_whoever_is_beside_them() -> None:
    easy, hard = torch.zeros(15, 3), torch.zeros(15, 3)
    easy[0], hard[0] = torch.tensor([9.0, 0.0, -9.0]), torch.tensor([0.0, 0.0, -9.0])
    language = TableLanguage(torch.stack([easy, hard]), ("easy", "hard"))
    found = AnswerPower(6, budget=1000)(language, ["easy", "hard"], n=8, max_tokens=LIMIT, seed=5, grade_fn=grade)
    assert [len(group) for group in found.rollouts] == [8, 8]
    few, many = found.info.notes["responses_drawn"]
    assert few == 48 < many
    alone = AnswerPower(6, budget=1000)(language, ["easy"], n=8, max_tokens=LIMIT, seed=5, grade_fn=grade)
    assert alone.info.notes["responses_drawn"] == [48]


def test_giving_up_is_said_and_no_response_without_an_answer_fills_in() -> None:
    language, read = LANGUAGES["random 0"], []

    def told(prompts: Sequence[int], rollouts: Sequence[Rollout]) -> list[Grade]:
        grades = [Grade(0.0, r.text if len(r.text) == 3 else None, "wrong") for r in rollouts]
        read.extend(rollouts)
        return grades

    found = AnswerPower(6, budget=6)(language, [""], n=10, max_tokens=LIMIT, seed=6, grade_fn=told)
    assert found.info.notes["gave_up"][0] > 0
    assert any("gave up" in warning and "budget" in warning for warning in found.info.warnings)
    assert len(found.rollouts[0]) == 10
    assert all(len(rollout.text) == 3 for rollout in found.rollouts[0])
    assert len(read) == 60 == found.info.notes["responses_drawn"][0]


def test_what_fills_in_leans_to_frequent_answers() -> None:
    """One answer has 90 % and two the rest: with g = 40 no group agrees, and the frequent answer is picked all the
    same."""
    logits = torch.zeros(1, 15, 3)
    logits[:, 0] = torch.tensor([0.9, 0.1, 1e-9]).log()
    found = AnswerPower(40, budget=40)(TableLanguage(logits), [""], n=4, max_tokens=LIMIT, seed=7, grade_fn=grade)
    assert found.info.notes["gave_up"][0] > 0
    assert {rollout.text[0] for rollout in found.rollouts[0]} == {"a"}


def test_where_nothing_has_an_answer_it_is_said() -> None:
    def silent(_: Sequence[int], rollouts: Sequence[Rollout]) -> list[Grade]:
        return [Grade(0.0, None, "no_answer") for _ in rollouts]

    found = AnswerPower(2, budget=4)(LANGUAGES["random 0"], ["", ""], n=3, max_tokens=LIMIT, seed=8, grade_fn=silent)
    assert [len(group) for group in found.rollouts] == [3, 3]
    assert found.info.notes["gave_up"] == [3, 3]
    assert any("without one" in warning for warning in found.info.warnings)


@pytest.mark.parametrize("sampler", [AnswerPower(1), AnswerPower(4), AnswerPower(3, budget=5)], ids=repr)
def test_it_draws_no_more_than_it_says(sampler: AnswerPower) -> None:
    found = sampler(LANGUAGES["random 0"], [""] * 2, n=5, max_tokens=LIMIT, seed=0, grade_fn=grade)
    assert found.info.drawn <= 2 * sampler.drawn(5) * LIMIT
    assert all(drawn <= sampler.drawn(5) for drawn in found.info.notes["responses_drawn"])


@pytest.mark.parametrize("settings", [{"g": 0}, {"g": -2}, {"g": 2.5}, {"g": 4, "budget": 3}], ids=str)
def test_settings_without_meaning_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        AnswerPower(**settings)


def test_it_needs_a_grade_fn() -> None:
    with pytest.raises(ValueError, match="grade_fn"):
        AnswerPower(2)(LANGUAGES["random 0"], [""], n=1, max_tokens=LIMIT, seed=0)
