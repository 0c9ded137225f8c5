"""Several gloo ranks against one process: the same weights, the same figures, the same responses."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from tests.models import tiny
from tests.ranks import on_ranks
from tiltlab.errors import UserError
from tiltlab.models.engine import Replica, Split
from tiltlab.models.loading import LoraConfig, ModelConfig, policy_from
from tiltlab.models.sharded import shards_of
from tiltlab.models.weights import apart
from tiltlab.objective import tilted
from tiltlab.system.world import ALONE, World
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.room import Room
from tiltlab.training.step_metrics import Metrics
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import Rollout

PROMPTS = ("a", "bb", "abc", "dead", "beef", "cafe")


@dataclass(frozen=True)
class Setting:
    """A training of a tiny Llama, by a tilted reward (a coin for each response)."""

    prompts: tuple[str, ...] = PROMPTS
    steps: int = 5
    lora: bool = False
    dtype: torch.dtype = torch.float32
    checkpointing: bool = False
    tied: bool = False
    state: str = "device"
    split: bool = False
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trained:
    """What a training came to, as one rank has it."""

    metrics: list[Metrics]
    weights: dict[str, Tensor]
    drawn: list[list[Rollout]]


@dataclass
class Training:
    """One under way."""

    world: World
    setting: Setting
    model: Any
    policy: Any
    reference: Any
    optimizer: Optimizer

    def go(self, start: int, stop: int, room: Room | None = None) -> list[Metrics]:
        budget = TrainConfig(stop, len(self.setting.prompts), 4, 8, micro_batch_tokens=40, signal="random")
        task = Lookup(self.setting.prompts, {})
        parts = (self.policy, self.reference, task, tilted(0.5, alpha=2), replace(budget, **self.setting.more))
        return list(train(*parts, self.optimizer, start=start, room=room, world=self.world))

    def came_to(self, metrics: list[Metrics]) -> Trained:
        drawn = self.policy.generate(PROMPTS, n=2, max_tokens=8, seed=1)
        return Trained(metrics, apart(self.model.weights()), drawn)


@contextmanager
def begun(world: World, setting: Setting) -> Iterator[Training]:
    module = tiny.llama(9, tie_word_embeddings=setting.tied).to(setting.dtype).requires_grad_(False)
    lora = LoraConfig(rank=2) if setting.lora else None
    config = ModelConfig(path="tiny", device="cpu", checkpointing=setting.checkpointing, lora=lora)
    with policy_from(tiny.model(module), config, 0, world) as (policy, base):
        adamw = OptimizerConfig(lr=3e-3, warmup_steps=2, state=setting.state)  # type: ignore[arg-type]
        optimizer = Optimizer(policy.trainable(), adamw, shards_of(policy))
        engine = Replica(tiny.model(tiny.llama(9).requires_grad_(False)))
        yield Training(world, setting, policy, Split(policy, engine) if setting.split else policy, base, optimizer)


def trained(world: World, setting: Setting) -> Trained:
    with begun(world, setting) as training:
        return training.came_to(training.go(0, setting.steps))


def ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    found = on_ranks(size, function, *args)
    for one in found:
        if isinstance(one, BaseException):
            raise one
    return found


def off(one: Trained, other: Trained) -> float:
    """The largest difference of a weight."""
    assert one.weights.keys() == other.weights.keys()
    return max(float((one.weights[k].float() - other.weights[k].float()).abs().max()) for k in one.weights)


def figures(trained: Trained) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens")} for line in trained.metrics]


SETTINGS = {
    "full": Setting(),
    "more ranks than prompts": Setting(prompts=PROMPTS[:3]),
    "equal prompts": Setting(prompts=("a", "a", "bb", "a", "cafe")),
    "fixed length": Setting(more={"fixed_length": True}),
    "adapters": Setting(lora=True),
    "checkpointing": Setting(checkpointing=True, state="host"),
    "tied": Setting(tied=True),
    "another engine": Setting(split=True),
}


ON_FOUR = ("full", "more ranks than prompts", "another engine")


def _all_trained(world: World) -> dict[str, Trained]:
    names = SETTINGS if world.size == 2 else ON_FOUR
    return {name: trained(world, SETTINGS[name]) for name in names}


@pytest.fixture(scope="module")
def of_ranks() -> list[dict[str, Trained]]:
    """What each rank of two, and of four, comes to."""
    return [*ranks(2, _all_trained), *ranks(4, _all_trained)]


@pytest.mark.parametrize("name", SETTINGS)
def test_ranks_come_to_what_one_process_comes_to(of_ranks: list[dict[str, Trained]], name: str) -> None:
    """Weights within 1e-5 after five steps, all figures of all steps, and the same responses from then on. Rounding
    alone differs: gradients are added up in another order."""
    setting = SETTINGS[name]
    alone = trained(ALONE, setting)
    assert off(alone, trained(ALONE, replace(setting, steps=0))) > 5e-3
    for one in (rank[name] for rank in of_ranks if name in rank):
        assert off(alone, one) <= 1e-5
        for own, expected in zip(figures(one), figures(alone), strict=True):
            assert own == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)
        assert [[r.tokens for r in group] for group in one.drawn] == [[r.tokens for r in g] for g in alone.drawn]


def _dtypes(world: World) -> tuple[Any, ...]:
    setting = Setting(dtype=torch.bfloat16, steps=2)
    with begun(world, setting) as training:
        kept = {part.dtype for part in training.model.shards.parts().values()}
        return training.go(0, 2), {w.dtype for _, w in training.model.weights()}, kept


def test_a_bf16_model_computes_in_bf16_on_float32_weights_and_begins_at_no_kl_at_all() -> None:
    for metrics, computed, kept in ranks(2, _dtypes):
        assert (computed, kept) == ({torch.bfloat16}, {torch.float32})
        assert metrics[0]["kl"] == 0 != metrics[1]["kl"]
        assert metrics[0]["mismatch_max"] < 0.1


def _halved(world: World) -> tuple[Trained, int]:
    """Memory runs out on the last rank alone, in its second micro-batch."""
    room = Room(80)
    with begun(world, Setting()) as training:
        calls, logprobs = [0], training.policy.logprobs

        def short_of_memory(*args: Any) -> Any:
            calls[0] += 1
            if world.rank == world.size - 1 and calls[0] == 2:
                raise torch.OutOfMemoryError("no room")
            return logprobs(*args)

        training.policy.logprobs = short_of_memory
        return training.came_to(training.go(0, 5, room)), room.micro_batch_tokens


def test_memory_that_runs_out_on_one_rank_changes_nothing_but_its_own_micro_batches() -> None:
    alone = trained(ALONE, Setting())
    found = ranks(2, _halved)
    for one, _ in found:
        assert off(alone, one) <= 1e-5
        assert [line["halved"] for line in one.metrics] == [1, 0, 0, 0, 0]
    assert [tokens < 80 for _, tokens in found] == [False, True]


# On the disk


SAVED = {"full": SETTINGS["full"], "adapters": SETTINGS["adapters"], "bf16": Setting(dtype=torch.bfloat16)}


def _saved(world: World, folder: Path, names: Sequence[str] = tuple(SAVED)) -> dict[str, Trained]:
    """Trained for three steps, saved, and on to the fifth."""
    on = {}
    for name in names:
        with begun(world, SAVED[name]) as training:
            first = training.go(0, 3)
            if world.is_first:
                (folder / name).mkdir(parents=True)
                training.model.save(folder / name)
            world.wait()
            training.optimizer.save(folder / name / "optimizer")
            on[name] = training.came_to(first + training.go(3, 5))
    return on


def _resumed(world: World, folder: Path) -> dict[str, Trained]:
    on = {}
    for name, setting in SAVED.items():
        with begun(world, setting) as training:
            training.policy.restore(folder / name, 3)
            training.optimizer.restore(folder / name / "optimizer")
            on[name] = training.came_to(training.go(3, 5))
    return on


@pytest.mark.parametrize("size", [1, 2])
def test_a_saved_training_goes_on_with_any_number_of_ranks(tmp_path: Path, size: int) -> None:
    """To the last bit with the number that it had."""
    on = ranks(size, _saved, tmp_path)[0] if size > 1 else _saved(ALONE, tmp_path)
    again = {1: _resumed(ALONE, tmp_path)}
    again |= {n: ranks(n, _resumed, tmp_path)[0] for n in ((2, 4) if size == 2 else (2,))}
    for name in SAVED:
        assert (tmp_path / name / "optimizer").is_dir() == (size == 2)
        close = 2e-2 if name == "bf16" else 1e-5  # a bf16 weight is rounded up or down
        for n, one in again.items():
            assert off(on[name], one[name]) <= (0 if n == size else close)


def test_a_part_that_is_missing_or_cut_short_is_said(tmp_path: Path) -> None:
    ranks(2, _saved, tmp_path, ["full"])
    folder = tmp_path / "full" / "optimizer"
    parts = sorted(folder.iterdir())
    assert len(parts) == 2
    whole = parts[1].read_bytes()
    with begun(ALONE, SAVED["full"]) as training:
        before = {name: slot.exp_avg.clone() for name, slot in training.optimizer._state.slots.items()}
        parts[1].unlink()
        with pytest.raises(UserError, match="lacks"):
            training.optimizer.restore(folder)
        parts[1].write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="cannot be read"):
            training.optimizer.restore(folder)
        assert all(torch.equal(slot.exp_avg, before[name]) for name, slot in training.optimizer._state.slots.items())
    parts[1].write_bytes(whole)
    with begun(ALONE, Setting(lora=True)) as other, pytest.raises(UserError, match="lacks"):
        other.optimizer.restore(folder)


def _in_slots(world: World) -> None:
    module = tiny.llama(9).requires_grad_(False)
    with policy_from(tiny.model(module), ModelConfig(path="tiny", device="cpu", decoding="slots"), 0, world):
        pass


def test_slots_are_refused() -> None:
    for one in on_ranks(2, _in_slots):
        assert isinstance(one, UserError)
        assert "model.decoding" in str(one)


def test_a_full_disk_under_one_part_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("a file is in the way")
    for one in on_ranks(2, _saved_to, tmp_path / "no folder" / "optimizer"):
        assert isinstance(one, OSError)


def _saved_to(world: World, path: Path) -> None:
    with begun(world, Setting()) as training:
        training.optimizer.save(path)


# What FSDP2 does of itself


def _naive(world: World) -> None:
    """A collective in every forward and backward, and another number of them on each rank."""
    mesh = DeviceMesh.from_group(dist.new_group(timeout=dt.timedelta(seconds=30)), "cpu")
    module = tiny.llama(9)
    for part in (*module.model.layers, module):
        fully_shard(part, mesh=mesh)
    for _ in range(1 + world.rank):
        module(torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()


def test_wrapped_naively_ranks_with_unlike_numbers_of_micro_batches_never_meet() -> None:
    found = on_ranks(2, _naive)
    assert any(isinstance(one, RuntimeError | EOFError) for one in found)  # they wait in vain, or gloo aborts one


def test_ours_do_not_wait_for_each_other_between_two_updates() -> None:
    """One rank draws and scores twice what the other does, and neither waits for the other."""
    assert ranks(2, _unlike) == [1, 2]


def _unlike(world: World) -> int:
    with begun(world, Setting()) as training:
        for times in range(1 + world.rank):
            group = training.policy.generate(["a"], n=2, max_tokens=4, seed=times)
            training.policy.logprobs(["a"], group).total_PG.sum().backward()
        training.optimizer.step(0)
        return 1 + times
