"""The transformers model against its own plain forward, and against every response that it can give."""

import copy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import MambaConfig, MambaForCausalLM

from tests.models import tiny
from tests.tolerances import tv_tolerance
from tiltlab.errors import UserError
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, ModelConfig, load_codec, load_reference, policy_from
from tiltlab.models.table import total_variation
from tiltlab.types import Rollout

PROMPTS = ["abc", "a", "abcdabcdabcd", "abd"]
"""Ragged, and with a beginning that all share."""


def plain_logprobs(model: HFModel, prompt: str, rollout: Rollout) -> Tensor:
    """log p of each token by the module's own forward over prompt and response, one row, no cache, no padding."""
    prompt_ids = model.codec.encode(prompt)
    ids = torch.tensor([[*prompt_ids, *rollout.tokens]])
    logits = model.module(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, torch.tensor(rollout.tokens)[:, None])[:, 0]


def drawn(model: HFModel, n: int = 5, **options: Any) -> list[list[Rollout]]:
    return model.generate(PROMPTS, n=n, **({"max_tokens": 12, "seed": 0} | options))


@pytest.mark.parametrize("module", [tiny.llama, tiny.gpt2, tiny.mistral, tiny.gemma3], ids=lambda make: make.__name__)
@pytest.mark.parametrize("batch_tokens", [32768, 40])
def test_logprobs_are_those_of_the_plain_forward(module: Any, batch_tokens: int) -> None:
    """With prompts shared, padded, bucketed by length and split into batches, nothing moves."""
    model = tiny.model(module(), batch_tokens=batch_tokens)
    rollouts = drawn(model)
    with torch.no_grad():
        scored = model.logprobs(PROMPTS, rollouts)
    for p, prompt in enumerate(PROMPTS):
        for g, rollout in enumerate(rollouts[p]):
            plain = plain_logprobs(model, prompt, rollout)
            size = len(rollout.tokens)
            torch.testing.assert_close(scored.token_PGT[p, g, :size], plain, atol=1e-4, rtol=1e-4)
            assert scored.token_PGT[p, g, size:].abs().sum() == 0
            torch.testing.assert_close(torch.tensor(rollout.logprobs), plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_plain_forward(checkpointing: bool) -> None:
    model = tiny.model(checkpointing=checkpointing)
    rollouts = drawn(model)
    weights = torch.randn(len(PROMPTS), 5, generator=torch.Generator().manual_seed(0))
    (model.logprobs(PROMPTS, rollouts).total_PG * weights).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}
    model.module.zero_grad()
    sum(
        weights[p, g] * plain_logprobs(model, prompt, rollout).sum()
        for p, prompt in enumerate(PROMPTS)
        for g, rollout in enumerate(rollouts[p])
    ).backward()  # type: ignore[union-attr]
    assert len(ours) == len(model.trainable())
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(ours[name], parameter.grad, atol=1e-3, rtol=1e-3)


def test_chunked_vocabulary_changes_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    rollouts = drawn(model)
    whole = model.logprobs(PROMPTS, rollouts)
    whole.total_PG.sum().backward()
    before = {name: p.grad.clone() for name, p in model.trainable().items() if p.grad is not None}
    model.module.zero_grad()
    monkeypatch.setattr("tiltlab.models.vocabulary.CHUNK_BYTES", 4 * 9 * 7)  # seven rows at a time
    parts = model.logprobs(PROMPTS, rollouts)
    parts.total_PG.sum().backward()
    torch.testing.assert_close(parts.token_PGT, whole.token_PGT)
    torch.testing.assert_close(parts.entropy_PGT, whole.entropy_PGT)
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(parameter.grad, before[name], atol=1e-5, rtol=1e-4)


def every_response(letters: int, limit: int) -> list[tuple[int, ...]]:
    """All strings over letters 1..n that end with EOS (0) within the limit, and all that are truncated by it."""
    ended = [(*body, 0) for size in range(limit) for body in product(range(1, letters + 1), repeat=size)]
    return ended + list(product(range(1, letters + 1), repeat=limit))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_generate_draws_from_the_distribution_of_the_model(temperature: float) -> None:
    """Every response of up to three tokens over two letters, by the plain forward, beside 20 000 samples."""
    model = tiny.model(tiny.llama(3), letters="ab")
    distribution, responses = [], every_response(2, 3)
    for tokens in responses:
        ids = torch.tensor([[*model.codec.encode("ab"), *tokens]])
        with torch.no_grad():
            logits = model.module(input_ids=ids).logits[0, 1:-1] / temperature
        distribution.append(logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None]).sum().exp())
    exact = torch.stack(distribution)
    assert exact.sum().item() == pytest.approx(1, abs=1e-4)
    samples = model.generate(["ab"], n=20_000, temperature=temperature, max_tokens=3, seed=4)[0]
    tally = torch.zeros(len(responses))
    for rollout in samples:
        tally[responses.index(rollout.tokens)] += 1
        assert rollout.complete == (rollout.tokens[-1] == 0)
    assert total_variation(tally / len(samples), exact) < tv_tolerance(exact, len(samples))


def test_ignoring_eos_draws_fixed_lengths_in_which_eos_is_a_token() -> None:
    model = tiny.model(tiny.llama(3), letters="ab")
    samples = model.generate(["ab"], n=5000, max_tokens=3, seed=4, ignore_eos=True)[0]
    assert all(len(rollout.tokens) == 3 and rollout.complete for rollout in samples)
    assert any(0 in rollout.tokens[:-1] for rollout in samples)
    assert all(rollout.text == "".join(".ab"[t] for t in rollout.tokens).split(".")[0] for rollout in samples)
    responses = list(product(range(3), repeat=3))
    rollouts = [Rollout(tokens, "", True, ()) for tokens in responses]
    exact = model.logprobs(["ab"], [rollouts]).total_PG[0].detach().exp()
    assert exact.sum().item() == pytest.approx(1, abs=1e-4)
    tally = torch.tensor([sum(r.tokens == tokens for r in samples) / len(samples) for tokens in responses])
    assert total_variation(tally, exact) < tv_tolerance(exact, len(samples))


def test_the_batch_that_a_prompt_shares_does_not_change_its_responses() -> None:
    model = tiny.model()
    together = drawn(model)
    for prompt, group in zip(PROMPTS, together, strict=True):
        (alone,) = model.generate([prompt], n=5, max_tokens=12, seed=0)
        assert [r.tokens for r in alone] == [r.tokens for r in group]
    small = tiny.model(batch_tokens=30)
    assert [[r.tokens for r in group] for group in drawn(small)] == [[r.tokens for r in group] for group in together]


def test_seeds_repeat_and_twins_differ() -> None:
    model = tiny.model()
    assert drawn(model) == drawn(model)
    assert drawn(model) != drawn(model, seed=1)
    first, second = model.generate(["abc", "abc"], n=8, max_tokens=12, seed=0)
    assert [r.tokens for r in first] != [r.tokens for r in second]


def test_a_stop_text_ends_a_response_and_counts() -> None:
    model = tiny.model(stop="d")
    assert set(model.codec.end_ids) == {0, "abcdefgh".index("d") + 1}
    rollouts = [rollout for group in drawn(model, n=40) for rollout in group]
    assert {r.tokens[-1] for r in rollouts if r.complete} == set(model.codec.end_ids)
    for rollout in rollouts:
        assert not set(rollout.tokens[:-1]) & set(model.codec.end_ids)
        assert "d" not in rollout.text
        assert len(rollout.logprobs) == len(rollout.tokens)


def test_bf16_weights_score_in_float32() -> None:
    module = tiny.llama().bfloat16()
    model = tiny.model(module)
    rollouts = drawn(model)
    scored = model.logprobs(PROMPTS, rollouts)
    assert scored.token_PGT.dtype == torch.float32
    exact = tiny.model(copy.deepcopy(module).float()).logprobs(PROMPTS, rollouts)
    assert (scored.token_PGT - exact.token_PGT).abs().max() < 0.3  # what the bf16 body alone costs


def test_entropy_is_that_of_the_next_token() -> None:
    model = tiny.model()
    rollouts = drawn(model, n=1)
    scored = model.logprobs(PROMPTS, rollouts)
    ids = torch.tensor([[*model.codec.encode(PROMPTS[0]), *rollouts[0][0].tokens]])
    logp = model.module(input_ids=ids).logits[0, len(PROMPTS[0]) - 1 : -1].log_softmax(-1)
    size = len(rollouts[0][0].tokens)
    torch.testing.assert_close(scored.entropy_PGT[0, 0, :size], -(logp.exp() * logp).sum(-1), atol=1e-4, rtol=1e-4)


def test_a_model_that_would_be_scored_wrongly_is_refused() -> None:
    class Louder(type(tiny.llama())):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 1.5  # something after the head that HFModel knows nothing of
            return out

    module = tiny.llama()
    module.__class__ = Louder
    with pytest.raises(UserError, match="not supported"):
        tiny.model(module)


@pytest.mark.parametrize("scale", [{"logit_scale": 0.5}, {"logits_scaling": 2.0}, {"final_logit_softcapping": 3.0}])
def test_what_known_families_do_after_the_head_is_done(scale: dict[str, float]) -> None:
    name, value = next(iter(scale.items()))

    class Family(type(tiny.llama())):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            done = {"logit_scale": lambda x: x * value, "logits_scaling": lambda x: x / value}
            out.logits = done.get(name, lambda x: value * torch.tanh(x / value))(out.logits)
            return out

    module = tiny.llama()
    module.__class__ = Family
    setattr(module.config, name, value)
    tiny.model(module)  # checks itself


# Policies


def step(policy: HFModel, rollouts: list[list[Rollout]]) -> None:
    policy.logprobs(PROMPTS, rollouts).total_PG.sum().backward()
    with torch.no_grad():
        for parameter in policy.trainable().values():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None
    policy.updated()


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_a_policy_starts_as_the_reference_and_leaves_it_alone(lora: LoraConfig | None, tmp_path: Path) -> None:
    base = tiny.model(tiny.llama().requires_grad_(False))
    untouched = base.fingerprint()
    rollouts = drawn(base)
    with policy_from(base, ModelConfig(lora=lora), seed=1) as (policy, reference):
        with torch.no_grad():
            before = reference.logprobs(PROMPTS, rollouts).total_PG
            assert torch.equal(policy.logprobs(PROMPTS, rollouts).total_PG, before)
        print_before = reference.fingerprint()
        for _ in range(2):
            step(policy, rollouts)
        with torch.no_grad():
            after = policy.logprobs(PROMPTS, rollouts).total_PG
            assert not torch.allclose(after, before, atol=0.1)
            assert torch.equal(reference.logprobs(PROMPTS, rollouts).total_PG, before)
        assert reference.fingerprint() == print_before
        assert policy.version == 2
        assert reference.version == 0
        print_after = policy.fingerprint()
        policy.save(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert base.fingerprint() == untouched
    with torch.no_grad():
        assert torch.equal(base.logprobs(PROMPTS, rollouts).total_PG, before)
    with policy_from(base, ModelConfig(lora=lora), seed=2) as (again, _):
        again.restore(tmp_path, version=2)
        with torch.no_grad():
            assert torch.equal(again.logprobs(PROMPTS, rollouts).total_PG, after)
        assert again.fingerprint() == print_after


def test_lora_trains_few_weights() -> None:
    base = tiny.model(tiny.llama().requires_grad_(False))
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=2)), seed=0) as (policy, _):
        assert all(".lora_" in name for name in policy.trainable())
        assert policy.nbytes < base.nbytes


def test_adapters_that_a_model_cannot_have_are_refused() -> None:
    base = tiny.model(tiny.llama().requires_grad_(False))
    with (
        pytest.raises(UserError, match="cannot have the adapters"),
        policy_from(base, ModelConfig(lora=LoraConfig(targets=("nowhere",))), seed=0),
    ):
        pass


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_checkpointing_reads_every_layer_again_in_the_backward_pass(lora: LoraConfig | None) -> None:
    base = tiny.model(tiny.llama().requires_grad_(False), checkpointing=True)
    rollouts = drawn(base)
    with policy_from(base, ModelConfig(lora=lora, checkpointing=True), seed=0) as (policy, _):
        calls: list[int] = []
        # the hook goes before the layer: recomputing stops once all that the backward pass needs is there
        layer = next(part for name, part in policy.module.named_modules() if name.endswith("layers.0.mlp"))
        hook = layer.register_forward_pre_hook(lambda *_: calls.append(1))
        total = policy.logprobs(PROMPTS, rollouts).total_PG.sum()
        forward = len(calls)
        total.backward()
        hook.remove()
        assert len(calls) == 2 * forward > 0
        assert all(p.grad is not None for p in policy.trainable().values())


# Loading


def saved(folder: Path) -> Path:
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path, **options: Any) -> HFModel:
    config = ModelConfig(path=str(folder), device="cpu", **options)
    model: HFModel = load_reference(config, load_codec(config))
    return model


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """transformers would fill them with random numbers and only warn."""
    weights = load_file(saved(tmp_path) / "model.safetensors")
    assert loaded(tmp_path).fingerprint() == loaded(tmp_path).fingerprint()
    gone = next(name for name in weights if "layers.1" in name)
    save_file({k: v for k, v in weights.items() if k != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 of its tensors"):
        loaded(tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    whole = (saved(tmp_path) / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cannot be loaded"):
        loaded(tmp_path)


def test_a_stop_text_that_no_token_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token"):
        loaded(saved(tmp_path), stop="xyz")


def test_a_model_without_a_cache_of_keys_is_refused() -> None:
    sizes = {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, "vocab_size": 9, "eos_token_id": 0}
    with pytest.raises(UserError, match="not supported"):
        tiny.model(MambaForCausalLM(MambaConfig(**sizes)))


def test_dropout_is_off_even_where_the_config_asks_for_it() -> None:
    module = tiny.llama(attention_dropout=0.5).train()
    model = tiny.model(module, checkpointing=True)
    rollouts = drawn(model)
    first, second = (model.logprobs(PROMPTS, rollouts).total_PG for _ in range(2))
    assert torch.equal(first, second)
