"""Drawing by an engine and training here: the plainest engine, a copy, changes nothing; others are told apart."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import tiny
from tests.training.test_train import LIMIT, Fixed
from tiltlab.models.engine import Replica, Request, Split, Weights, grouped, requests
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, ModelConfig, policy_from
from tiltlab.models.table import TableLanguage
from tiltlab.objective import tilted
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.alarms import alarms
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import Grade, Problem, Rollout

PROMPTS = ("ab", "cab", "b")


class ByRequest(TableLanguage):
    """A table that draws by engines' rule: a response depends on its prompt, not on its place in the batch."""

    def generate(
        self, prompts: Any, *, n: int, temperature: float = 1.0, max_tokens: int, seed: int, ignore_eos: bool = False
    ) -> list[list[Rollout]]:
        rows = requests([self.encode(prompt) for prompt in prompts], n, max_tokens, seed)
        return grouped(
            self, self.draw(rows, temperature, ignore_eos=ignore_eos), n, self.version, ignore_eos=ignore_eos
        )


@contextmanager
def table() -> Iterator[tuple[Any, Any, Any, Weights]]:
    """Policy, reference, a copy of the policy, and the weights that the copy takes; likewise below."""
    policy = ByRequest(TableLanguage.random(1, prompts=PROMPTS).logits.detach(), PROMPTS)
    yield policy, TableLanguage.random(1, prompts=PROMPTS), TableLanguage.random(2, prompts=PROMPTS), policy.weights


@contextmanager
def full(dtype: torch.dtype = torch.float32) -> Iterator[tuple[Any, Any, Any, Weights]]:
    reference = tiny.model(tiny.llama().to(dtype).requires_grad_(False))
    with policy_from(reference, ModelConfig(), 0) as (policy, _):
        yield policy, reference, copied(policy), policy.weights


@contextmanager
def adapters() -> Iterator[tuple[Any, Any, Any, Weights]]:
    """The copy has adapters of its own, and takes those of the policy as they are."""
    base = tiny.model(tiny.llama().requires_grad_(False))
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=4)), 0) as (policy, reference):
        yield policy, reference, copied(policy), lambda: policy.module.state_dict().items()


@contextmanager
def merged() -> Iterator[tuple[Any, Any, Any, Weights]]:
    """The copy is a plain model, and takes weights with adapters merged in."""
    base = tiny.model(tiny.llama().requires_grad_(False))
    copy = tiny.model(tiny.llama(seed=1))
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=4)), 0) as (policy, reference):
        yield policy, reference, copy, policy.weights


def copied(policy: HFModel) -> HFModel:
    return HFModel(copy.deepcopy(policy.module).requires_grad_(False), policy.codec)


Parts = tuple[Any, Any, Any, Weights]
Kind = Callable[[], AbstractContextManager[Parts]]
MODELS: dict[str, Kind] = {"table": table, "full": full, "bf16": lambda: full(torch.bfloat16), "adapters": adapters}


class Thirds(Lookup):
    """Rewards by how long a response is."""

    def grade(self, problem: Problem, text: str) -> Grade:
        return Grade(len(text) % 3 / 2, text, "correct" if len(text) % 3 == 2 else "wrong")


def trained(policy: Any, reference: Any, drawn: Any, steps: int = 4, lr: float = 0.01, **options: Any) -> Any:
    """Lines of metrics.jsonl, but for times."""
    optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=lr, warmup_steps=0))
    config = replace(TrainConfig(steps, 3, 4, LIMIT, micro_batch_tokens=32), **options)
    lines = list(train(drawn, reference, Thirds(PROMPTS, {}), tilted(0.5, alpha=2), config, optimizer))
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.parametrize("fixed_length", [False, True], ids=["", "fixed length"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_copy_as_engine_trains_to_the_same_last_bit(kind: str, fixed_length: bool) -> None:
    """Weights and every figure of every step, after four updates that each move the policy."""
    with MODELS[kind]() as (policy, reference, _, _):
        before = policy.fingerprint()
        plain = repr(trained(policy, reference, policy, fixed_length=fixed_length)), policy.fingerprint()
        assert policy.fingerprint() != before
    with MODELS[kind]() as (policy, reference, copy, weights):
        split = Split(policy, Replica(copy), weights)
        assert (repr(trained(policy, reference, split, fixed_length=fixed_length)), policy.fingerprint()) == plain
        assert (split.version, split.engine.version) == (4, 3)


def test_the_copy_of_an_adapted_model_draws_from_its_merged_weights() -> None:
    """Merging rounds: W + BA in float32 is off by half a unit in the last place of W, 6e-8 of it. Through two layers
    with logits of size 10 that is below 1e-4 nats a token; weights one update old are 100 times as far off."""
    with merged() as (policy, reference, copy, weights):
        split = Split(policy, Replica(copy), weights)
        lines = trained(policy, reference, split)
        assert 0 < max(line["mismatch_max"] for line in lines) < 1e-4
    with merged() as (policy, reference, copy, weights):
        lines = trained(policy, reference, Split(policy, Stale(copy), weights))
        assert min(line["mismatch_max"] for line in lines[1:]) > 1e-2


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_merged_weights_are_those_that_peft_merges_and_the_policy_stays(kind: str) -> None:
    base = tiny.model(getattr(tiny, kind)().requires_grad_(False))
    names = set(base.module.state_dict())
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=4)), 0) as (policy, reference):
        for parameter in policy.trainable().values():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
        before = policy.fingerprint()
        ours, bare = dict(policy.weights()), dict(reference.weights())
        assert policy.fingerprint() == before
        theirs = copy.deepcopy(policy.module).merge_and_unload().state_dict()
    plain = base.module.state_dict()
    assert ours.keys() == bare.keys() == theirs.keys() == names
    changed = {name for name in names if not torch.equal(ours[name], plain[name])}
    assert changed == {name for name in names if name.endswith("proj.weight") or (".c_" in name and "weight" in name)}
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=1e-6)
        assert torch.equal(bare[name], plain[name])


@pytest.mark.parametrize("kind", MODELS)
def test_a_request_gets_the_same_tokens_whatever_else_is_asked_for(kind: str) -> None:
    with MODELS[kind]() as (policy, *_):
        asked = [
            Request(tuple(policy.encode(prompt)), limit, seed, row)
            for prompt in PROMPTS
            for limit in (2, 5)
            for seed, row in ((1, 0), (1, 3), (2, 0))
        ]
        drawn = policy.draw(asked, 0.5, ignore_eos=False)
        back = policy.draw(asked[::-1], 0.5, ignore_eos=False)[::-1]
        assert [one.tokens for one in drawn] == [one.tokens for one in back]
        assert all(len(one.tokens) <= request.limit for one, request in zip(drawn, asked, strict=True))
        assert len({one.tokens for one in drawn}) > 6
        fixed = policy.draw(asked, 0.5, ignore_eos=True)
        assert [len(one.tokens) for one in fixed] == [request.limit for request in asked]
        assert policy.draw([], 1.0, ignore_eos=False) == []


# Weights that are not the policy's


class Stale(Replica):
    """An engine that takes weights once, and says each time that it took them."""

    def update(self, weights: Weights, version: int) -> None:
        if self.version < 0:
            super().update(weights, version)
        self.version = version


class Honest(Replica):
    """An engine that takes weights once, and says so."""

    def update(self, weights: Weights, version: int) -> None:
        if self.version < 0:
            super().update(weights, version)


@pytest.mark.parametrize("kind", MODELS)
def test_an_engine_that_says_it_is_stale_stops_the_loop_before_an_update(kind: str) -> None:
    with MODELS[kind]() as (policy, reference, copy, weights):
        with pytest.raises(RuntimeError, match=r"rollouts of policy version \[0\] met an update of version 1"):
            trained(policy, reference, Split(policy, Honest(copy), weights))
        assert policy.version == 1


@pytest.mark.parametrize("kind", ["table", "full", "adapters"])
def test_stale_weights_ring_though_the_engine_says_they_are_new(kind: str) -> None:
    """At the second step, whose weights are one update old; where the copy is a true one, never."""
    with MODELS[kind]() as (policy, reference, copy, weights):
        (alarm, *_) = alarms(trained(policy, reference, Split(policy, Stale(copy), weights)), [])
        assert (alarm.kind, alarm.step) == ("sampler mismatch", 2)
    with MODELS[kind]() as (policy, reference, copy, weights):
        lines = trained(policy, reference, Split(policy, Replica(copy), weights), steps=12)
        assert not {alarm.kind for alarm in alarms(lines, [])} & OF_SAMPLERS


OF_SAMPLERS = {"sampler mismatch", "few effective responses"}


def test_weights_that_were_never_the_policys_ring_at_the_first_step_and_leave_few_responses() -> None:
    with table() as (policy, reference, copy, weights):
        far = TableLanguage(copy.logits.detach() * -4, PROMPTS)
        fired = alarms(trained(policy, reference, Split(policy, Fixed(far), weights), steps=6, responses=64), [])
    assert fired[0].kind == "sampler mismatch"
    assert fired[0].step == 1
    assert {alarm.kind for alarm in fired} >= OF_SAMPLERS


def test_rounding_of_bf16_rings_nothing() -> None:
    """Of weights and activations of what draws, while float32 is trained."""
    with full() as (policy, reference, copy, weights):
        copy.module.to(torch.bfloat16)
        lines = trained(policy, reference, Split(policy, Replica(copy), weights), steps=12, lr=1e-3)
    assert all(1e-3 < line["mismatch_mean"] < 0.05 for line in lines)
    assert not {alarm.kind for alarm in alarms(lines, [])} & OF_SAMPLERS


def test_restored_weights_reach_the_engine_though_their_number_is_the_same(tmp_path: Path) -> None:
    with full() as (policy, _, copy, weights):
        split = Split(policy, Replica(copy), weights)

        def drawn() -> Any:
            return split.generate(PROMPTS, n=4, max_tokens=LIMIT, seed=3)

        before = drawn()
        split.save(tmp_path)
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter.mul_(0.5)
        split.updated()
        assert drawn() != before
        split.restore(tmp_path, 1)
        assert [[rollout.tokens for rollout in group] for group in drawn()] == [
            [rollout.tokens for rollout in group] for group in before
        ]
        assert split.engine.version == 1


@pytest.mark.parametrize("kind", MODELS)
def test_weights_of_another_model_are_refused(kind: str) -> None:
    with MODELS[kind]() as (_, _, copy, weights):
        given = dict(weights())
        with pytest.raises(ValueError, match="no place for odd"):
            copy.load((given | {"odd": torch.zeros(1)}).items())
        with pytest.raises(ValueError, match="1 tensors were not given"):
            copy.load(list(given.items())[1:])
