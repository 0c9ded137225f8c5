"""One RLOO step, phase by phase, beside TRL's RLOOTrainer on the same shapes, in the same run.

    python benchmarks/rloo_step.py [--gguf FILE] [--rounds 3] [--threads 2] [--no-trl]

Every response has the full length (EOS is ignored), so both sides handle the same tokens. The sides take turns, each in
a process of its own, set up as its users would find it (the tiltlab command sets the allocator, see memory.py; --plain
leaves that out). Figures are medians over all steps of all rounds. `peak` is the best matrix product of the run; a
phase's share of it counts 2 FLOPs a weight and response token for a forward and 4 for a backward: prompts, attention,
normalisation and everything else count as waste. TRL must be installed (`pip install tiltlab[bench]`).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltlab.system.memory import tune

if "--plain" not in sys.argv and "trl" not in sys.argv:
    tune()

import torch
import transformers

from tiltlab.models.loading import ModelConfig, load_codec, load_reference, policy_from
from tiltlab.objective import tilted
from tiltlab.tasks.base import Split
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import Grade, Problem


@dataclass(frozen=True)
class Shape:
    """P prompts x G responses x T tokens on a model."""

    name: str
    model: ModelConfig
    prompts: int
    responses: int
    tokens: int
    prompt: str


@dataclass(frozen=True)
class Ready:
    """A task whose rewards cost nothing and differ within groups."""

    shape: Shape
    name: str = "benchmark"

    def problems(self, split: Split) -> list[Problem]:
        return [Problem(str(i), self.shape.prompt.format(10 + i), "0") for i in range(self.shape.prompts)]

    def render(self, problem: Problem) -> str:
        return problem.question

    def grade(self, problem: Problem, text: str) -> Grade:
        return Grade(reward(text), None, "wrong")


def reward(text: str) -> float:
    return float(len(set(text)) % 7)


def gemm_peak() -> float:
    """FLOP/s of the best of several matrix products, float32 on CPU, bfloat16 on GPU."""
    on_gpu = torch.cuda.is_available()
    size, dtype = (8192, torch.bfloat16) if on_gpu else (1536, torch.float32)
    left, right = (torch.randn(size, size, dtype=dtype, device="cuda" if on_gpu else "cpu") for _ in range(2))
    best = float("inf")
    for _ in range(10):
        best = min(best, seconds(lambda: left @ right))
    return 2 * size**3 / best


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def tiltlab_steps(shape: Shape, reference: Any, steps: int) -> list[dict[str, float]]:
    """Seconds by phase of some steps, after one to warm up."""
    task = Ready(shape)
    config = TrainConfig(steps + 1, shape.prompts, shape.responses, shape.tokens, fixed_length=True)
    with policy_from(reference, shape.model, 0) as (policy, frozen):
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=1e-6))
        all_metrics = list(train(policy, frozen, task, tilted(0.05), config, optimizer))
    return [dict(metrics["seconds"]) for metrics in all_metrics[1:]]


def trl_steps(shape: Shape, reference: Any, rounds: int) -> Callable[[], list[float]]:
    """A function that runs TRL's trainer for `rounds` steps (after one to warm up) and returns their seconds."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.taken: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.taken.append(time.perf_counter() - self.started)

    def steps() -> list[float]:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            config = RLOOConfig(
                output_dir=folder,
                per_device_train_batch_size=shape.prompts * shape.responses,
                num_generations=shape.responses,
                max_completion_length=shape.tokens,
                generation_kwargs={"min_new_tokens": shape.tokens},
                max_steps=rounds + 1,
                learning_rate=1e-6,
                beta=0.05,
                temperature=1.0,
                use_cpu=not torch.cuda.is_available(),
                bf16=torch.cuda.is_available(),
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_strategy="no",
            )
            prompts = [problem.question for problem in Ready(shape).problems("train")]
            reference.save(Path(folder))  # TRL reads its reference model from disk
            trainer = RLOOTrainer(
                model=transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=reference.module.dtype),
                reward_funcs=lambda completions, **_: [reward(text) for text in completions],
                args=config,
                train_dataset=Dataset.from_dict({"prompt": prompts * (rounds + 1)}),
                processing_class=reference.codec.tokenizer,
                callbacks=[clock],
            )
            trainer.train()
        return clock.taken[1:]

    return steps


SHAPES = ("embedded", "SmolLM2-135M")


def shape_of(name: str, gguf: str) -> Shape:
    if name == "embedded":
        return Shape(name, ModelConfig(), 16, 8, 60, "noisy {0}+47=")
    prompt = "A farmer has {0} sheep and buys 12 more. How many sheep are there now? Think step by step."
    return Shape(name, ModelConfig(path=gguf), 4, 8, 48, prompt)


def measure(side: str, shape: Shape, steps: int) -> dict[str, Any]:
    """What one process sees: seconds of each step (by phase, for tiltlab), the GEMM peak, the number of weights."""
    reference = load_reference(shape.model, load_codec(shape.model))
    peak = gemm_peak()
    if side == "trl":
        taken: list[Any] = trl_steps(shape, reference, steps)()
    else:
        taken = tiltlab_steps(shape, reference, steps)
    weights = sum(p.numel() for p in reference.module.parameters())
    return {"steps": taken, "peak": max(peak, gemm_peak()), "weights": weights}


def in_a_process(side: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--shape", name, "--threads", str(arguments.threads)]
    command += ["--gguf", arguments.gguf or "", "--steps", str(arguments.steps)] + ["--plain"] * arguments.plain
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def report(name: str, arguments: argparse.Namespace) -> None:
    shape = shape_of(name, arguments.gguf)
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(in_a_process("tiltlab", name, arguments))
        if not arguments.no_trl:
            theirs.append(in_a_process("trl", name, arguments))
    peak = statistics.median(run["peak"] for run in ours + theirs)
    weights, tokens = ours[0]["weights"], shape.prompts * shape.responses * shape.tokens
    print(f"\n{name}: {weights / 1e6:.2f} M weights, {shape.prompts} x {shape.responses} x {shape.tokens} tokens")
    print(f"measured GEMM peak {peak / 1e9:.0f} GFLOP/s")
    forward = 2 * weights * tokens
    flops = {"rollout": forward, "reference": forward, "update": 3 * forward, "grade": 0}
    phases = [step for run in ours for step in run["steps"]]
    lines = {phase: (statistics.median(step[phase] for step in phases), flops[phase]) for phase in phases[0]}
    lines["step"] = (statistics.median(sum(step.values()) for step in phases), 5 * forward)
    if theirs:
        lines["TRL step"] = (statistics.median(taken for run in theirs for taken in run["steps"]), 5 * forward)
    for line, (took, work) in lines.items():
        share = f"{work / took / peak:6.1%} of peak" if work else ""
        print(f"  {line:10s} {took:8.3f} s  {tokens / took:10.0f} tokens/s  {share}")
    if theirs:
        print(f"  TRL / tiltlab: {lines['TRL step'][0] / lines['step'][0]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", help="a SmolLM2 GGUF file; without it only the embedded model is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="of each side in each round, after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-trl", action="store_true")
    parser.add_argument("--plain", action="store_true", help="leave the allocator as it is")
    parser.add_argument("--side", choices=["tiltlab", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=SHAPES, help="only this one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    if arguments.side:
        print(json.dumps(measure(arguments.side, shape_of(arguments.shape, arguments.gguf), arguments.steps)))
        return
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads")
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU")
    for name in [arguments.shape] if arguments.shape else SHAPES[: 2 if arguments.gguf else 1]:
        report(name, arguments)


if __name__ == "__main__":
    main()
