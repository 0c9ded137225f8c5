"""How different the particles of a population still are at its end, with and without moves.

    python benchmarks/population_moves.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf

By prompt: ancestors that survive, distinct responses among those given, distinct last halves, and what it cost.
"""

import argparse

import torch

from tiltlab.models.loading import ModelConfig, load_codec, load_reference
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.types import Prompt, Rollout

QUESTIONS = (
    "A farmer has 17 sheep and buys 12 more. How many are there now?",
    "Write a short story about a lighthouse.",
    "Why is the sky blue?",
    "Name three rivers in Europe.",
)


def last_halves(group: list[Rollout]) -> int:
    return len({rollout.tokens[len(rollout.tokens) // 2 :] for rollout in group})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", required=True, help="a SmolLM2 GGUF file")
    parser.add_argument("--alpha", type=float, nargs="*", default=[1.25, 4.0])
    parser.add_argument("--moves", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--prompts", type=int, default=len(QUESTIONS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = ModelConfig(path=arguments.gguf)
    model = load_reference(config, load_codec(config))
    print(
        "| alpha | moves | prompt | ancestors | distinct | last halves | mean log p | length | accepted | tokens | s |"
    )
    print("|---:" * 11 + "|")
    for question in QUESTIONS[: arguments.prompts]:
        prompt: Prompt = ({"role": "user", "content": question},)
        for alpha in arguments.alpha:
            for moves in arguments.moves:
                sampler = PowerSMC(alpha, arguments.particles, moves=moves)
                samples = sampler(model, [prompt], n=arguments.particles, max_tokens=arguments.tokens, seed=0)
                (group,), notes = samples.rollouts, samples.info.notes
                logp = sum(sum(rollout.logprobs) for rollout in group) / len(group)
                length = sum(len(rollout.tokens) for rollout in group) / len(group)
                accepted = notes.get("acceptance", [0.0])[0]
                print(
                    f"| {alpha:g} | {moves} | {question[:12]} | {notes['ancestors'][0]:.0f} | {notes['distinct'][0]} "
                    f"| {last_halves(group)} | {logp:.1f} | {length:.0f} | {accepted:.3f} "
                    f"| {samples.info.drawn / len(group):.0f} | {samples.info.seconds:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
