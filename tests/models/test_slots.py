"""Decoding in slots, held against plain decoding: the same tokens, and the same log-probabilities up to rounding."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tests.models import tiny
from tiltlab.errors import UserError
from tiltlab.models import slot_cache, slot_decoding, slots
from tiltlab.models.engine import Request
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, ModelConfig, policy_from
from tiltlab.models.slot_cache import to_the_left
from tiltlab.types import Rollout

PROMPTS = ["abc", "a", "abcdabcdabcd", "abd", "abc"]
"""Ragged, with a beginning that all share, and one of them twice."""

SIZES: dict[str, Any] = {
    "vocab_size": 9,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.4,
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": None,
}


def llama(tied: bool = False, **options: Any) -> Any:
    return tiny.llama(tie_word_embeddings=tied, **options)


def qwen2(tied: bool = False, **options: Any) -> Any:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied, **options))


def qwen3(tied: bool = False, **options: Any) -> Any:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=tied, **options))


SHAPES = [llama, qwen2, qwen3]


def drawn(model: HFModel, **options: Any) -> list[list[Rollout]]:
    return model.generate(PROMPTS, **({"n": 5, "max_tokens": 20, "seed": 0} | options))


def assert_the_same(ours: list[list[Rollout]], plain: list[list[Rollout]]) -> None:
    for group, plain_group in zip(ours, plain, strict=True):
        for one, other in zip(group, plain_group, strict=True):
            assert (one.tokens, one.complete, one.text) == (other.tokens, other.complete, other.text)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def entered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each party that takes seats from now on: how many of its prompts and rows."""
    parties: list[tuple[int, int]] = []
    seat = slots.Slots.seat

    def noted(self: Any, taking: Any, context: Any, *rest: Any) -> None:
        parties.append((len(context.position_N), len(taking)))
        seat(self, taking, context, *rest)

    monkeypatch.setattr(slots.Slots, "seat", noted)
    return parties


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch_tokens", [32768, 200, 40], ids=["all at once", "entering and leaving", "one by one"])
def test_slots_draw_what_plain_decoding_draws(shape: Any, tied: bool, batch_tokens: int) -> None:
    module = shape(tied)
    ours = tiny.model(module, decoding="slots", batch_tokens=batch_tokens)
    plain = tiny.model(module, decoding="plain")
    for options in ({}, {"temperature": 0.5}, {"ignore_eos": True, "seed": 1}, {"max_tokens": 1}):
        assert_the_same(drawn(ours, **options), drawn(plain, **options))


def test_learned_positions_are_each_rows_own() -> None:
    assert_the_same(drawn(tiny.model(tiny.gpt2(), decoding="slots")), drawn(tiny.model(tiny.gpt2())))


def test_several_tokens_may_end_a_response() -> None:
    ours, plain = (tiny.model(stop="d", decoding=decoding, batch_tokens=200) for decoding in ("slots", "plain"))
    assert_the_same(drawn(ours, n=20), drawn(plain, n=20))
    ends = {r.tokens[-1] for group in drawn(ours, n=20) for r in group if r.complete}
    assert ends == set(ours.codec.end_ids)
    assert len(ends) == 2


def test_rows_of_other_limits_and_seeds_sit_side_by_side() -> None:
    ours, plain = (tiny.model(decoding=decoding, batch_tokens=200) for decoding in ("slots", "plain"))
    asked = [Request((1, 2, 3, 4)[: 1 + i % 4], 3 + 5 * (i % 3), i // 5, i % 5) for i in range(20)]
    for ignore_eos in (False, True):
        one, other = (model.draw(asked, 1.0, ignore_eos=ignore_eos) for model in (ours, plain))
        assert [(r.tokens, r.complete) for r in one] == [(r.tokens, r.complete) for r in other]
    assert ours.draw([], 1.0, ignore_eos=False) == []


def test_waiting_rows_enter_while_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step has an empty seat that a waiting row could have had, but for the share that they wait for."""
    parties = entered(monkeypatch)
    taken: list[tuple[int, int]] = []
    go_on = slot_decoding.SlotDecoder._go_on

    def noted(self: Any, seats: Any, *rest: Any) -> None:
        taken.append((seats.count, len(seats.taken)))
        go_on(self, seats, *rest)

    monkeypatch.setattr(slot_decoding.SlotDecoder, "_go_on", noted)
    model = tiny.model(decoding="slots", batch_tokens=8 * 32)
    parties.clear()
    taken.clear()
    drawn(model, n=20)
    full = taken[: len(taken) - 20 // 4 - 1]  # until nobody waits any more: the last rows end within 20 steps
    assert len(parties) > 5
    assert all(sitting > (1 - 1 / 8) * count for count, sitting in full)
    assert {count for count, _ in taken} == {8}


def test_a_prompt_is_read_once_for_all_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model(decoding="slots", batch_tokens=3 * 32)
    read: Counter[tuple[int, ...]] = Counter()
    inner = slot_decoding.read_prompts

    def noted(body: Any, config: Any, ids_P: Any, *rest: Any, **options: Any) -> Any:
        read.update(tuple(ids) for ids in ids_P)
        return inner(body, config, ids_P, *rest, **options)

    monkeypatch.setattr(slot_decoding, "read_prompts", noted)
    parties = entered(monkeypatch)
    drawn(model, n=10)
    del read[(0,)]  # tells how large keys are
    assert read == Counter({tuple(model.codec.encode(prompt)): 1 for prompt in PROMPTS})
    assert len(parties) > len(PROMPTS)


def test_progress_is_told_for_every_token() -> None:
    model = tiny.model(decoding="slots", batch_tokens=200)
    told: list[int] = []
    model.tell = told.append
    rollouts = drawn(model)
    assert sum(told) == sum(len(rollout.tokens) for group in rollouts for rollout in group)
    assert len(told) > 10


@pytest.mark.parametrize("kept", [False, True])
def test_new_weights_are_drawn_with(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether or not buffers of the call before are used again, and whatever was left in them."""
    monkeypatch.setattr(slot_decoding.SlotDecoder, "_stays", lambda self, _: kept)
    module = tiny.llama()
    ours, plain = tiny.model(module, decoding="slots"), tiny.model(module)
    assert ours._slots is not None
    before, buffers = drawn(ours), ours._slots._slots
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    after = drawn(ours)
    assert (ours._slots._slots is buffers) == kept or buffers is None
    assert [r.tokens for g in after for r in g] != [r.tokens for g in before for r in g]
    assert_the_same(after, drawn(plain))
    assert_the_same(drawn(ours, n=2, max_tokens=7), drawn(plain, n=2, max_tokens=7))
    assert_the_same(drawn(ours, n=9, max_tokens=30), drawn(plain, n=9, max_tokens=30))


def test_weights_that_moved_are_not_looked_for_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph reads from where weights were when it was recorded."""
    monkeypatch.setattr(slot_decoding.SlotDecoder, "_stays", lambda *_: True)
    model = tiny.model(decoding="slots")
    drawn(model)
    assert model._slots is not None
    before = model._slots._slots
    model.module.lm_head.weight.data = model.module.lm_head.weight.data.clone()
    drawn(model)
    assert model._slots._slots is not before


@pytest.mark.parametrize("shape", SHAPES)
def test_views_with_and_without_adapters(shape: Any) -> None:
    base = tiny.model(shape().requires_grad_(False))
    bare = drawn(base)
    config = ModelConfig(lora=LoraConfig(rank=4), decoding="slots", batch_tokens=200)
    with policy_from(base, config, seed=1) as (policy, reference):
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
        assert policy._slots is not None
        assert policy._slots is not reference._slots
        for _ in range(2):  # in turn
            adapted = drawn(policy)
            assert_the_same(adapted, drawn(HFModel(policy.module, base.codec)))
            assert_the_same(drawn(reference), bare)
        assert [r.tokens for g in adapted for r in g] != [r.tokens for g in bare for r in g]


def test_bf16_weights_are_drawn_from_too() -> None:
    model = tiny.model(tiny.llama().bfloat16(), decoding="slots")
    for prompt, group in zip(PROMPTS, drawn(model), strict=True):
        for rollout in group:
            ids = torch.tensor([[*model.codec.encode(prompt), *rollout.tokens]])
            logits = model.module.float()(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            exact = logits.log_softmax(-1).gather(-1, torch.tensor(rollout.tokens)[:, None])[:, 0]
            assert (exact - torch.tensor(rollout.logprobs)).abs().max() < 0.5
            model.module.bfloat16()


# What is refused


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (tiny.mistral, "sliding windows"),
        (tiny.gemma3, "sliding windows"),
        (lambda: llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "longest row"),
    ],
)
def test_what_slots_cannot_do_is_refused_by_name_and_left_to_plain_decoding_else(
    module: Callable[[], Any], why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=f"cannot be decoded in slots: .*{why}.*; set model.decoding to auto or plain"):
        tiny.model(module(), decoding="slots")
    slot_decoding._say_once.cache_clear()
    assert slot_decoding.slot_decoder(tiny.model(module()), module(), "auto") is None
    assert not caplog.records  # nothing was asked for, and on CPU nothing is chosen
    monkeypatch.setattr(slot_decoding, "chosen", lambda decoding, device: True)
    for _ in range(2):
        assert_the_same(drawn(tiny.model(module())), drawn(tiny.model(module(), decoding="plain")))
    (said,) = caplog.records
    assert why in said.getMessage()


def test_attention_with_more_to_it_is_refused() -> None:
    query = torch.zeros(2, 4, 1, 8)
    key = torch.zeros(2, 2, 16, 8)
    for name in ("softcap", "s_aux", "position_bias"):
        with pytest.raises(ValueError, match=f"its attention has {name}"):
            slot_cache.attend(None, query, key, key, torch.zeros(2, 1, 1, 16), **{name: 1.0})


def one_column_more(column_N: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    return slot_cache.up_to((column_N + 1).clamp(max=columns - 1), columns, dtype)


def nothing_hidden(column_N: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(len(column_N), 1, 1, columns, dtype=dtype)


@pytest.mark.parametrize("mask", [one_column_more, nothing_hidden])
def test_a_wrong_mask_is_noticed_before_anything_is_drawn(mask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "up_to", mask)
    with pytest.raises(UserError, match="in slots: log-probabilities are off by"):
        tiny.model(decoding="slots")


def test_a_wrong_column_is_noticed_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneBefore(slot_cache.SlotLayer):
        def __init__(self, keys: Tensor, values: Tensor, row_N: Tensor, column_N: Tensor) -> None:
            super().__init__(keys, values, row_N, (column_N - 1).clamp(min=0))

    monkeypatch.setattr(slots, "SlotLayer", OneBefore)
    with pytest.raises(UserError, match="in slots: log-probabilities are off by"):
        tiny.model(decoding="slots")


def test_padding_that_stays_where_it_was_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "to_the_left", lambda states_PL, mask_PL: to_the_left(states_PL, None))
    with pytest.raises(UserError, match="in slots: log-probabilities are off by"):
        tiny.model(decoding="slots")


# Graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
def test_graphs_draw_what_plain_decoding_draws(shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = shape().cuda()
    ours = tiny.model(module, decoding="slots", batch_tokens=400)
    plain = tiny.model(module, decoding="plain")
    assert ours._slots is not None
    for seed in range(3):
        for temperature in (1.0, 0.5):
            one, other = (drawn(model, n=20, seed=seed, temperature=temperature) for model in (ours, plain))
            assert_the_same(one, other)
        recorded = ours._slots._slots
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    assert recorded is not None
    assert recorded is ours._slots._slots
    assert recorded._graphs is not None
    assert recorded._graphs._graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_auto_is_slots_on_a_gpu() -> None:
    assert tiny.model(tiny.llama().cuda())._slots is not None
    assert tiny.model(tiny.mistral().cuda())._slots is None
