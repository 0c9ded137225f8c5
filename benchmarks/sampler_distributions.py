"""How far from p^4 each sampler ends, and what it costs in tokens, on languages whose responses can all be listed.

    python benchmarks/sampler_distributions.py

364 responses, up to six tokens. Total variation (0: the distribution itself, 1: nothing in common) is from 20 000
draws; `noise` is what as many draws from the exact distribution would show.
"""

import torch

from tiltlab.models.table import TableLanguage, counts, optimum, rewards_of, total_variation
from tiltlab.objective import tempered
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.best_of_n import BestOfN
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature

DRAWS = 20_000
SAMPLERS: dict[str, Sampler] = {
    "plain": Temperature(),
    "temperature .25": Temperature(0.25),
    "best of 4 by log p": BestOfN(4),
    "best of 16 by log p": BestOfN(16),
    **{f"power MCMC, {steps} steps": PowerMCMC(4, steps) for steps in (2, 8, 32, 128)},
    **{f"power SMC, {particles} particles": PowerSMC(4, particles) for particles in (4, 16, 64, 1024)},
}


def short_mode() -> TableLanguage:
    """A language in which the empty response is by far the likeliest, though most responses are long."""
    logits = TableLanguage.random(3).logits.detach().clone()
    logits[:, 0] = torch.tensor([0.25, 0.25, 0.25, 0.25]).log()
    logits[:, 1:40, 3] -= 2.0
    return TableLanguage(logits)


def main() -> None:
    languages = {"random 0": TableLanguage.random(0), "random 1": TableLanguage.random(1), "short mode": short_mode()}
    print("| sampler | " + " | ".join(f"{name}: TV | tokens" for name in languages) + " |")
    print("|---|" + "---:|" * 2 * len(languages))
    for label, sampler in SAMPLERS.items():
        cells = []
        for language in languages.values():
            nothing = torch.zeros(1, len(language.sequences()))
            distribution = optimum(tempered(4), language, nothing)[0]
            samples = sampler(language, [""], n=DRAWS, max_tokens=6, seed=0)
            distance = total_variation(counts(language, samples.rollouts[0]) / DRAWS, distribution).item()
            cells += [f"{distance:.3f}", f"{(samples.info.drawn + samples.info.rescored) / DRAWS:.1f}"]
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
    noise = []
    for language in languages.values():
        distribution = optimum(tempered(4), language, rewards_of(language, dict.fromkeys(_texts(language), 0.0)))[0]
        drawn = torch.multinomial(distribution, DRAWS, replacement=True, generator=torch.Generator().manual_seed(0))
        noise += [
            f"{total_variation(torch.bincount(drawn, minlength=len(distribution)) / DRAWS, distribution).item():.3f}",
            "–",
        ]
    print("| noise | " + " | ".join(noise) + " |")


def _texts(language: TableLanguage) -> list[str]:
    return [rollout.text for rollout in language.enumerated()[0]]


if __name__ == "__main__":
    main()
