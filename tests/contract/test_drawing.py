"""What vLLM draws, and what it says of it."""

from collections.abc import Iterator

import pytest
import torch

from tests.contract.shapes import A_TOKEN, PROMPTS, drawn_by_vllm, mismatch, needs_vllm, policy
from tiltlab.errors import UserError
from tiltlab.models.engine import Request, Split, requests

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def both() -> Iterator[Split]:
    with drawn_by_vllm(policy("qwen3", tied=True)) as split:
        yield split


def rows(both: Split, limit: int = 32) -> list[Request]:
    return requests([both.encode(prompt) for prompt in PROMPTS], 4, limit, 0)


def test_the_same_request_gives_the_same_tokens_in_any_order_and_company(both: Split) -> None:
    wanted = both.draw(rows(both), 1.0, ignore_eos=False)
    again = both.draw(rows(both), 1.0, ignore_eos=False)
    backwards = both.draw(rows(both)[::-1], 1.0, ignore_eos=False)[::-1]
    alone = [both.draw([row], 1.0, ignore_eos=False)[0] for row in rows(both)[:4]]
    tokens = [one.tokens for one in wanted]
    assert [one.tokens for one in again] == tokens
    assert [one.tokens for one in backwards] == tokens
    assert [one.tokens for one in alone] == tokens[:4]
    assert len(set(tokens)) > len(PROMPTS)  # responses to one prompt differ


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_log_probabilities_are_those_at_temperature_1(both: Split, temperature: float) -> None:
    assert mismatch(both, temperature=temperature) < A_TOKEN


def test_a_colder_draw_is_likelier(both: Split) -> None:
    means = [
        torch.tensor([sum(one.logprobs) / len(one.tokens) for one in both.draw(rows(both), t, ignore_eos=False)]).mean()
        for t in (0.3, 1.0, 1.5)
    ]
    assert means[0] > means[1] > means[2]


def test_the_first_token_is_drawn_from_the_model_s_own_distribution(both: Split) -> None:
    """No top-k and no top-p of anybody's: 4000 first tokens of one prompt, against the enumerated distribution."""
    from tests.tolerances import tv_tolerance

    ids = tuple(both.encode(PROMPTS[0]))
    drawn = both.draw([Request(ids, 1, seed=1, row=row) for row in range(4000)], 1.0, ignore_eos=False)
    trained = both.trained
    with torch.no_grad():
        probs_V = trained.module(torch.tensor([ids])).logits[0, -1].double().softmax(-1)  # type: ignore[attr-defined]
    counts_V = torch.bincount(torch.tensor([one.tokens[0] for one in drawn]), minlength=len(probs_V))
    distance = 0.5 * (counts_V / len(drawn) - probs_V).abs().sum().item()
    assert distance < tv_tolerance(probs_V, len(drawn))


def test_a_response_ends_with_its_end_token_or_at_its_limit(both: Split) -> None:
    ends = both.trained.codec.end_ids  # type: ignore[attr-defined]
    drawn = both.draw(rows(both, 200), 1.5, ignore_eos=False)
    for one in drawn:
        assert one.complete == (one.tokens[-1] in ends)
        assert not set(one.tokens[:-1]) & set(ends)
        assert one.complete or len(one.tokens) == 200
        assert len(one.tokens) == len(one.logprobs)


def test_each_request_has_a_limit_of_its_own(both: Split) -> None:
    ids = tuple(both.encode(PROMPTS[0]))
    drawn = both.draw([Request(ids, limit, 0) for limit in (1, 7, 3)], 1.0, ignore_eos=True)
    assert [len(one.tokens) for one in drawn] == [1, 7, 3]


def test_with_eos_ignored_every_response_is_as_long_as_its_limit(both: Split) -> None:
    drawn = both.draw(rows(both, 150), 1.5, ignore_eos=True)
    assert {len(one.tokens) for one in drawn} == {150}
    ends = set(both.trained.codec.end_ids)  # type: ignore[attr-defined]
    assert any(set(one.tokens[:-1]) & ends for one in drawn)  # drawn, and passed over
    rollouts = both.generate(PROMPTS, n=2, max_tokens=20, seed=0, ignore_eos=True)
    assert all(rollout.complete and len(rollout.tokens) == 20 for group in rollouts for rollout in group)


def test_what_was_read_with_older_weights_is_forgotten(both: Split) -> None:
    """The prompts are the same, and their keys are not."""
    for _ in range(3):
        with torch.no_grad():
            for parameter in both.trainable().values():
                parameter += 0.02 * torch.randn_like(parameter)
        both.updated()
        assert mismatch(both) < A_TOKEN


def test_stale_weights_show(both: Split) -> None:
    assert mismatch(both) < A_TOKEN
    with torch.no_grad():
        for parameter in both.trainable().values():
            parameter *= 1.02
    assert mismatch(both) > 100 * A_TOKEN  # the engine was told of no new version
    both.updated()
    assert mismatch(both) < A_TOKEN


@pytest.mark.parametrize("temperature", [0.001, 3.0])
def test_a_temperature_that_vllm_would_change_is_refused(both: Split, temperature: float) -> None:
    with pytest.raises(UserError, match="draws at temperatures from 0.01 to 2"):
        both.draw(rows(both), temperature, ignore_eos=False)


def test_a_request_beyond_the_context_is_refused_and_the_next_is_drawn(both: Split) -> None:
    ids = tuple(both.encode(PROMPTS[0]))
    with pytest.raises(UserError, match=f"a prompt of {len(ids)} tokens and 300 after it"):
        both.draw([Request(ids, 300, 0)], 1.0, ignore_eos=False)
    assert mismatch(both) < A_TOKEN
