"""How far from p^4 each sampler ends, and what it costs in tokens, on languages whose responses can all be listed.

    python benchmarks/sampler_distributions.py

364 responses, up to six tokens. Total variation (0: the distribution itself, 1: nothing in common) is from 20 000
draws; `noise` is what as many draws from the exact distribution would show.
"""

import argparse

import torch

from tiltlab.models.base import LanguageModel
from tiltlab.models.engine import Replica, Split
from tiltlab.models.table import TableLanguage, counts, optimum, rewards_of, total_variation
from tiltlab.objective import tempered
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.best_of_n import BestOfN
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature

SAMPLERS: dict[str, Sampler] = {
    "plain": Temperature(),
    "temperature .25": Temperature(0.25),
    "best of 4 by log p": BestOfN(4),
    "best of 16 by log p": BestOfN(16),
    **{f"power MCMC, {steps} steps": PowerMCMC(4, steps) for steps in (2, 8, 32, 128)},
    **{f"power SMC, {particles} particles": PowerSMC(4, particles) for particles in (4, 16, 64, 1024)},
    **{f"power SMC, 16 particles, moves {moves}": PowerSMC(4, 16, moves=moves) for moves in (1, 4)},
}
BY_REQUEST: dict[str, Sampler] = {
    "by request: power MCMC, 8 steps": PowerMCMC(4, 8),
    "by request: power SMC, 16 particles, blocks of 2": PowerSMC(4, 16, block=2),
    "by request: the same at temperature 1": PowerSMC(4, 16, block=2, temperature=1.0),
}
"""Drawn by another engine, here a copy of the model."""


def short_mode() -> TableLanguage:
    """A language in which the empty response is by far the likeliest, though most responses are long."""
    logits = TableLanguage.random(3).logits.detach().clone()
    logits[:, 0] = torch.tensor([0.25, 0.25, 0.25, 0.25]).log()
    logits[:, 1:40, 3] -= 2.0
    return TableLanguage(logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    arguments = parser.parse_args()
    languages = {"random 0": TableLanguage.random(0), "random 1": TableLanguage.random(1), "short mode": short_mode()}
    print("| sampler | " + " | ".join(f"{name}: TV | tokens" for name in languages) + " |")
    print("|---|" + "---:|" * 2 * len(languages))
    for label, sampler in (SAMPLERS | BY_REQUEST).items():
        if arguments.only not in label:
            continue
        cells = []
        for language in languages.values():
            model: LanguageModel = language
            if label in BY_REQUEST:
                model = Split(language, Replica(language.clone()))
            nothing = torch.zeros(1, len(language.sequences()))
            distribution = optimum(tempered(4), language, nothing)[0]
            samples = sampler(model, [""], n=arguments.draws, max_tokens=6, seed=0)
            distance = total_variation(counts(language, samples.rollouts[0]) / arguments.draws, distribution).item()
            cells += [f"{distance:.3f}", f"{(samples.info.drawn + samples.info.rescored) / arguments.draws:.1f}"]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
    noise = []
    for language in languages.values():
        distribution = optimum(tempered(4), language, rewards_of(language, dict.fromkeys(_texts(language), 0.0)))[0]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.multinomial(distribution, arguments.draws, replacement=True, generator=generator)
        found = torch.bincount(drawn, minlength=len(distribution)) / arguments.draws
        noise += [f"{total_variation(found, distribution).item():.3f}", "–"]
    print("| noise | " + " | ".join(noise) + " |")


def _texts(language: TableLanguage) -> list[str]:
    return [rollout.text for rollout in language.enumerated()[0]]


if __name__ == "__main__":
    main()
