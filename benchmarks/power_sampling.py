"""What samplers cost, in wall time and tokens, as multiples of plain sampling, in the same run.

    python benchmarks/power_sampling.py [--gguf FILE] [--rounds 3] [--n 16] [--threads 2]

For each model the samplers draw n responses to each of 16 prompts. Columns:
`time`: seconds over those of plain sampling of the same number of responses in one batch, medians over the rounds, in
which the samplers take turns. `tokens`: tokens drawn and scored again for one response. `per token`: time over what the
sampler's own number of tokens costs in plain batched sampling (time / (tokens / plain tokens)): 1 means no overhead but
the tokens. Memory is the process's peak.
"""

import argparse
import platform
import resource
import statistics

from tiltlab.system.memory import tune

if __name__ == "__main__":
    tune()

import torch
import transformers

from tiltlab.models.loading import ModelConfig, load_codec, load_reference
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.beam import Beam
from tiltlab.samplers.best_of_n import BestOfN
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.types import Prompt

SAMPLERS: dict[str, Sampler] = {
    "plain": Temperature(),
    "best of 4": BestOfN(4),
    "beam 16": Beam(16),
    "power SMC, 16 particles": PowerSMC(4, 16),
    "power MCMC, 8 steps": PowerMCMC(4, 8),
    "power MCMC, 20 steps": PowerMCMC(4, 20),
    # the same machinery on the model's own distribution: lengths, and so the work, are then those of plain sampling
    "SMC at alpha 1": PowerSMC(1, 16),
    "MCMC at alpha 1": PowerMCMC(1, 8),
}


def prompts_for(name: str, count: int) -> list[Prompt]:
    if name == "embedded":
        return [f"noisy {11 + 3 * i}+47=" for i in range(count)]
    questions = [f"A farmer has {10 + i} sheep and buys 12 more. How many are there now?" for i in range(count)]
    return [({"role": "user", "content": question},) for question in questions]


def report(name: str, config: ModelConfig, arguments: argparse.Namespace) -> None:
    model = load_reference(config, load_codec(config))
    prompts = prompts_for(name, arguments.prompts)
    chosen = {label: sampler for label, sampler in SAMPLERS.items() if label not in arguments.skip}
    taken: dict[str, list[float]] = {label: [] for label in chosen}
    tokens: dict[str, float] = {}
    kept: dict[str, float] = {}
    for sampler in chosen.values():  # warms up
        sampler(model, prompts, n=arguments.n, max_tokens=3, seed=0)
    for seed in range(arguments.rounds):
        for label, sampler in chosen.items():
            samples = sampler(model, prompts, n=arguments.n, max_tokens=arguments.tokens, seed=seed)
            rows = [rollout for group in samples.rollouts for rollout in group]
            taken[label].append(samples.info.seconds)
            tokens[label] = (samples.info.drawn + samples.info.rescored) / len(rows)
            kept[label] = sum(len(rollout.tokens) for rollout in rows) / len(rows)
    plain = statistics.median(taken["plain"])
    print(f"\n{name}: {arguments.prompts} prompts x {arguments.n} responses, at most {arguments.tokens} tokens")
    print(f"plain sampling: {plain:.2f} s, {plain / arguments.prompts / arguments.n * 1000:.1f} ms a response")
    print(f"{'':26s}{'seconds':>9s}{'time':>8s}{'tokens':>8s}{'kept':>7s}{'per token':>11s}")
    for label, seconds in taken.items():
        ratio = statistics.median(seconds) / plain
        per_token = ratio / (tokens[label] / tokens["plain"])
        print(f"{label:26s}{ratio * plain:9.2f}{ratio:8.2f}{tokens[label]:8.1f}{kept[label]:7.1f}{per_token:11.2f}")
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", help="a SmolLM2 GGUF file; without it only the embedded model is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--skip", nargs="*", default=[], help="samplers to leave out, by name")
    parser.add_argument("--batch-tokens", type=int, default=32768, help="tokens that a batch may hold")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads")
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU")
    report("embedded", ModelConfig(batch_tokens=arguments.batch_tokens), arguments)
    if arguments.gguf:
        report("SmolLM2-135M", ModelConfig(path=arguments.gguf, batch_tokens=arguments.batch_tokens), arguments)


if __name__ == "__main__":
    main()
