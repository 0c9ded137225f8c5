"""Rows that are copied, dropped and sent back must read as if nothing had happened to them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import tiny
from tests.models.test_hf import PROMPTS, every_response, plain_logprobs
from tests.tolerances import tv_tolerance
from tiltlab.errors import UserError
from tiltlab.models import stepping
from tiltlab.models.hf import HFModel
from tiltlab.models.table import total_variation
from tiltlab.samplers.base import Sampler, Samples
from tiltlab.samplers.beam import Beam
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.types import Grade, Rollout

SAMPLERS: list[Sampler] = [
    PowerMCMC(2, 12),
    PowerMCMC(0.5, 6),
    PowerSMC(2, 4, threshold=1.0),
    PowerSMC(3, 8, ramp=3),
    PowerSMC(2, 4, moves=2),
    Beam(4),
    Temperature(0.8, top_k=4),
]


def samples_of(sampler: Sampler, model: HFModel, prompts: Sequence[str] = PROMPTS, n: int = 8) -> Samples:
    return sampler(model, prompts, n=n, max_tokens=12, seed=3)


@pytest.mark.parametrize("module", [tiny.llama, tiny.gpt2], ids=lambda make: make.__name__)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_log_p_of_what_samplers_return_is_that_of_the_plain_forward(
    sampler: Sampler, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ragged prompts, left padding, cuts, resampling and tidying: the log-probabilities met on the way were right."""
    monkeypatch.setattr(stepping, "TIDY_EVERY", 5)
    model = tiny.model(module())
    for prompt, group in zip(PROMPTS, samples_of(sampler, model).rollouts, strict=True):
        for rollout in group:
            with torch.no_grad():
                plain = plain_logprobs(model, prompt, rollout)
            torch.testing.assert_close(torch.tensor(rollout.logprobs), plain, atol=1e-4, rtol=1e-4)
            assert rollout.complete == (rollout.tokens[-1] == 0)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_batch_that_a_prompt_shares_changes_nothing(sampler: Sampler) -> None:
    model = tiny.model()
    together = samples_of(sampler, model)
    assert together.rollouts == samples_of(sampler, model).rollouts
    for prompt, group in zip(PROMPTS, together.rollouts, strict=True):
        (alone,) = samples_of(sampler, model, [prompt]).rollouts
        assert [rollout.tokens for rollout in alone] == [rollout.tokens for rollout in group]
    small = tiny.model(batch_tokens=100)  # a prompt at a time
    assert [[r.tokens for r in g] for g in samples_of(sampler, small).rollouts] == [
        [r.tokens for r in g] for g in together.rollouts
    ]


def test_chains_that_wait_to_leave_are_not_graded() -> None:
    """Some chains are done before others, and end a response while no other one does."""

    def grade_fn(_: Sequence[int], rollouts: Sequence[Rollout]) -> list[Grade]:
        assert rollouts
        return [Grade(len(rollout.tokens) / 10, None, "wrong") for rollout in rollouts]

    model = tiny.model()
    samples = PowerMCMC(2, 30, beta=0.2)(model, PROMPTS, n=8, max_tokens=12, seed=3, grade_fn=grade_fn)
    assert [len(group) for group in samples.rollouts] == [8] * len(PROMPTS)
    assert model.rollouts([]) == []


def power_distribution(model: HFModel, prompt: str, alpha: float) -> tuple[list[tuple[int, ...]], Tensor]:
    """p^alpha over the complete responses of up to three tokens."""
    responses = [tokens for tokens in every_response(2, 3) if tokens[-1] == 0]
    logps = []
    for tokens in responses:
        ids = torch.tensor([[*model.codec.encode(prompt), *tokens]])
        with torch.no_grad():
            logits = model.module(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        logps.append(logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None]).sum())
    return responses, (alpha * torch.stack(logps)).double().softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [PowerMCMC(2, 40), PowerSMC(2, 4000)], ids=str)
def test_a_transformer_is_sampled_from_its_power(sampler: Sampler) -> None:
    model = tiny.model(tiny.llama(3, seed=10), letters="ab")  # four in five of its responses end in time
    samples = sampler(model, ["ab", "b"], n=4000, max_tokens=3, seed=1)
    for prompt, group in zip(["ab", "b"], samples.rollouts, strict=True):
        responses, distribution = power_distribution(model, prompt, 2)
        tally = torch.zeros(len(responses), dtype=torch.float64)
        complete = [rollout for rollout in group if rollout.complete]  # a chain that met no end has nothing to say
        assert len(complete) > 0.99 * len(group)
        for rollout in complete:
            tally[responses.index(rollout.tokens)] += 1
        assert total_variation(tally / len(complete), distribution).item() < tv_tolerance(distribution, len(complete))


def test_going_back_is_refused_where_a_window_slides() -> None:
    with pytest.raises(UserError, match="sliding window"):
        samples_of(PowerMCMC(2, 4), tiny.model(tiny.mistral()))


def test_a_window_that_slides_is_no_matter_to_a_population() -> None:
    model = tiny.model(tiny.mistral())
    for prompt, group in zip(PROMPTS, samples_of(PowerSMC(2, 8), model).rollouts, strict=True):
        for rollout in group:
            with torch.no_grad():
                plain = plain_logprobs(model, prompt, rollout)
            torch.testing.assert_close(torch.tensor(rollout.logprobs), plain, atol=1e-4, rtol=1e-4)


def test_a_reference_without_its_adapter_is_sampled_as_such() -> None:
    from tiltlab.models.loading import LoraConfig, ModelConfig, policy_from

    base = tiny.model(tiny.llama().requires_grad_(False))
    expected = samples_of(PowerSMC(2, 8), base).rollouts
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=4)), seed=1) as (policy, reference):
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter += 0.5
        assert [[r.tokens for r in g] for g in samples_of(PowerSMC(2, 8), reference).rollouts] == [
            [r.tokens for r in g] for g in expected
        ]
        assert samples_of(PowerSMC(2, 8), policy).rollouts != expected
