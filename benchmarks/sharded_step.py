"""A training step with sharded weights beside the same step without, in the same run.

    python -m benchmarks.sharded_step [--model PATH] [--rounds 5] [--steps 2]
    torchrun --nproc-per-node N -m benchmarks.sharded_step ...

On one rank it is what sharding costs where it brings nothing: the two sides take turns, and the figure is the median of
the rounds' ratios. On N ranks each side has a step's whole batch: N processes share it out, and rank 0 alone does it
all while the others wait, so the ratio is what N ranks gain. Weights after the rounds are compared, since both sides
take the same steps. Responses have the full length. Runs on CUDA where there is a GPU for each rank, else on CPU.
"""

import argparse
import os
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
from benchmarks.rloo_step import Ready, Shape

from tiltlab.models.loading import ModelConfig, load_codec, load_reference, policy_from
from tiltlab.models.sharded import ShardedHFModel
from tiltlab.objective import tilted
from tiltlab.system.world import ALONE, World
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train


class Side:
    """A policy with its optimiser, going on from where it was."""

    def __init__(self, reference: Any, shape: Shape, policy: Any, world: World) -> None:
        self.reference, self.shape, self.policy, self.world = reference, shape, policy, world
        shards = policy.shards if isinstance(policy, ShardedHFModel) else None
        self.optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=1e-5, warmup_steps=0), shards)
        self.step = 0

    def seconds(self, steps: int) -> float:
        """Of some steps, on average."""
        shape, start, stop = self.shape, self.step, self.step + steps
        config = TrainConfig(stop, shape.prompts, shape.responses, shape.tokens, fixed_length=True)
        self.step, began = stop, time.perf_counter()
        run = train(
            self.policy,
            self.reference,
            Ready(shape),
            tilted(0.05),
            config,
            self.optimizer,
            start=start,
            world=self.world,
        )
        for _ in run:
            pass
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=ModelConfig().path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=60)
    asked = parser.parse_args()
    os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {
        key: os.environ.get(key, value) for key, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "0"}.items()
    }
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.device_count() > rank
    device = f"cuda:{rank}" if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    world = World(dist.get_rank(), dist.get_world_size())
    shape = Shape(
        "", ModelConfig(path=asked.model, device=device), asked.prompts, asked.responses, asked.tokens, "{0}+47="
    )
    reference = load_reference(shape.model, load_codec(shape.model))
    with policy_from(reference, shape.model, 0) as (plain, _), policy_from(reference, shape.model, 0) as (own, _):
        policy = ShardedHFModel(own.module, reference.codec, world=world)
        policy.batch_tokens, policy.scoring_tokens = plain.batch_tokens, plain.scoring_tokens
        compare(world, Side(reference, shape, plain, ALONE), Side(reference, shape, policy, world), asked)
    dist.destroy_process_group()


def compare(world: World, plain: Side, sharded: Side, asked: argparse.Namespace) -> None:
    alone, together = [], []
    for _ in range(1 + asked.rounds):
        if world.is_first:
            alone.append(plain.seconds(asked.steps))
        world.wait()
        together.append(sharded.seconds(asked.steps))
    if world.is_first:
        where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        ratios = [one / other for one, other in zip(alone[1:], together[1:], strict=True)]  # the first is to warm up
        weights, others = dict(plain.policy.weights()), dict(sharded.policy.weights())
        worst = max(float((weights[name].float() - others[name].float()).abs().max()) for name in weights)
        print(f"torch {torch.__version__}, {where}, {world.size} ranks, {len(ratios)} rounds of {asked.steps} steps")
        print(f"alone {statistics.median(alone[1:]):.3f} s a step, sharded {statistics.median(together[1:]):.3f} s")
        print(f"alone / sharded: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        print(f"largest difference of a weight after {plain.step} steps: {worst:.2g}")


if __name__ == "__main__":
    main()
