"""What theory demands, seen on languages small enough to enumerate, and what a finite-sample trainer makes of it.

Every exact number is a sum over all sequences; every trained one comes from the same train.py that trains transformers.

Shapes: _P prompts, _S all sequences of the language.

Left out on purpose: pictures (see report/lab.py). The results are plain values.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltlab.models.table import TableLanguage, optimum, rewards_of, sequence_lengths, total_variation
from tiltlab.objective import Objective, sharpening, tempered, tilted
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train

ALPHAS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
BETAS = (2.0, 1.0, 0.5, 0.3, 0.2, 0.1)
BATCHES = (2, 4, 8, 16, 32, 64)
LEARNING_RATE = 0.3
"""High, as learning rates of RL are for the few steps taken: what is lost early is rarely sampled again."""
COMMITTED = 0.9
"""A policy has committed once one response has this much of its mass."""


@dataclass(frozen=True)
class LengthBias:
    """The distribution of the length under p^alpha, counted and by formula.

    alphas: exponents of p.
    lengths: tokens, EOS included.
    enumerated: `[alpha][length]`, probability, summed over all sequences.
    formula: `[alpha][length]`, probability P(T)^alpha exp(-(alpha - 1) H_alpha(Y | T)) / Z, with the Renyi entropy
        H_alpha of the responses of length T, in nats.
    """

    alphas: tuple[float, ...]
    lengths: list[int]
    enumerated: list[list[float]]
    formula: list[list[float]]


@dataclass(frozen=True)
class TwoLengths:
    """Mean length under p^alpha and under a temperature of 1 / alpha for each token, which are not the same.

    alphas: exponents of p.
    power: `[alpha]`, mean length under p^alpha, in tokens.
    temperature: `[alpha]`, mean length at temperature 1 / alpha, in tokens.
    """

    alphas: tuple[float, ...]
    power: list[float]
    temperature: list[float]


@dataclass(frozen=True)
class Helps:
    """Accuracy under p^alpha for two sets of right answers, and its slope at alpha = 1: Cov(correct, log p) under p.

    alphas: exponents of p.
    with_likelihood: `[alpha]`, accuracy where right answers lean to likely responses.
    against_likelihood: `[alpha]`, accuracy where they lean to unlikely ones.
    slope_with, slope_against: the covariance of each, in nats.
    """

    alphas: tuple[float, ...]
    with_likelihood: list[float]
    against_likelihood: list[float]
    slope_with: float
    slope_against: float


@dataclass(frozen=True)
class RewardPath:
    """Accuracy of the tilted optimum for a binary reward and alpha = 1, counted, by formula and trained.

    betas: weights of the KL.
    enumerated: `[beta]`, accuracy of the optimum, summed over all sequences.
    formula: `[beta]`, a e^(1/beta) / (a e^(1/beta) + 1 - a), with a the accuracy of the base.
    trained: `[beta]`, accuracy that training reached.
    kl: `[beta]`, KL of the trained policy from the base, in nats.
    """

    betas: tuple[float, ...]
    enumerated: list[float]
    formula: list[float]
    trained: list[float]
    kl: list[float]


@dataclass(frozen=True)
class Commitment:
    """Training on p^alpha's limit (sharpening, beta = 0) and on tempered alpha = 4 with batches of several sizes.

    batches: responses in a batch.
    on_mode: `[batch][seed]`, mass on the base's likeliest response after sharpening.
    on_top: `[batch][seed]`, mass on whatever response is the likeliest then.
    tempered_distance: `[batch][seed]`, total variation to the optimum after tempered training.
    path: `[batch][i][seed]`, mass on the base's likeliest response through sharpening, before step i * every.
    every: training steps between two entries of the path.
    """

    batches: tuple[int, ...]
    on_mode: list[list[float]]
    on_top: list[list[float]]
    tempered_distance: list[list[float]]
    path: list[list[list[float]]]
    every: int

    def wrong(self) -> list[int]:
        """How many seeds committed to a response that is not the likeliest, by batch size."""
        pairs = zip(self.on_mode, self.on_top, strict=True)
        return [sum(t > COMMITTED and m < 0.5 for m, t in zip(*both, strict=True)) for both in pairs]


@dataclass(frozen=True)
class Lab:
    """Results of all experiments, each under its own name (length_bias, two_lengths, and so on)."""

    length_bias: LengthBias
    two_lengths: TwoLengths
    helps: Helps
    reward_path: RewardPath
    commitment: Commitment


def run_lab(seeds: int = 40, steps: int = 120, tell: Callable[[str, int, int], None] = lambda *_: None) -> Lab:
    """Run all experiments.

    seeds: independent runs for each batch size.
    steps: of training in each run.
    tell: told how far that is: (what, done, total).
    """
    # Its two likeliest responses have probabilities .161 and .125 and begin with different tokens.
    language = TableLanguage.random(2, spread=0.8)
    return Lab(
        length_bias(language),
        two_lengths(),
        helps(language),
        reward_path(language, tell),
        commitment(language, seeds, steps, tell),
    )


def length_bias(language: TableLanguage) -> LengthBias:
    """How p^alpha changes the length of responses, for each alpha in `ALPHAS`."""
    logp_S, tokens_S = language.sequence_logprobs().detach()[0].double(), sequence_lengths(language)
    lengths = sorted({int(length) for length in tokens_S})
    groups = [logp_S[tokens_S == length] for length in lengths]
    enumerated, formula = [], []
    for alpha in ALPHAS:
        power_S = (alpha * logp_S).softmax(-1)
        enumerated.append([power_S[tokens_S == length].sum().item() for length in lengths])
        terms = torch.tensor([_length_term(group, alpha) for group in groups], dtype=torch.float64)
        formula.append(terms.softmax(-1).tolist())
    return LengthBias(ALPHAS, lengths, enumerated, formula)


def _length_term(logp: Tensor, alpha: float) -> float:
    """alpha log P(T) - (alpha - 1) H_alpha(Y | T)."""
    total = logp.logsumexp(-1)
    conditional = logp - total
    renyi = (alpha * conditional).logsumexp(-1) / (1 - alpha) if alpha != 1 else torch.zeros(())
    return float(alpha * total - (alpha - 1) * renyi)


def two_lengths() -> TwoLengths:
    """A language where p^alpha and low temperature change the length in opposite directions.

    Each token is a with .4, b with .3 or the end with .3: the likeliest token is never the end, but the likeliest
    response is the empty one.
    """
    next_token = torch.tensor([0.4, 0.3, 0.3]).log()
    language = TableLanguage(next_token.expand(1, 127, 3))  # up to 6 symbols
    logp_S, tokens_S = language.sequence_logprobs().detach()[0], sequence_lengths(language)
    power = [((alpha * logp_S).softmax(-1) @ tokens_S).item() for alpha in ALPHAS]
    colder = [TableLanguage(alpha * language.logits.detach()).sequence_logprobs().detach()[0] for alpha in ALPHAS]
    return TwoLengths(ALPHAS, power, [(logp.exp() @ tokens_S).item() for logp in colder])


def helps(language: TableLanguage) -> Helps:
    """When sharpening helps: two sets of right answers of equal mass, one of likely responses, one of unlikely ones."""
    logp_S = language.sequence_logprobs().detach()[0].double()
    noise_S = torch.randn(len(logp_S), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    accuracy: list[list[float]] = []
    slopes: list[float] = []
    for sign in (1, -1):
        correct_S = _right_answers(sign * logp_S + noise_S, logp_S, 0.3)
        accuracy.append([((alpha * logp_S).softmax(-1) @ correct_S).item() for alpha in ALPHAS])
        mean = logp_S.exp() @ correct_S
        slopes.append(float(logp_S.exp() @ ((correct_S - mean) * logp_S)))
    return Helps(ALPHAS, accuracy[0], accuracy[1], slopes[0], slopes[1])


def reward_path(language: TableLanguage, tell: Callable[[str, int, int], None]) -> RewardPath:
    """What a binary reward comes to for each beta in `BETAS`: exactly, by formula, and by training.

    tell: told how far that is: (what, done, total).
    """
    logp_S = language.sequence_logprobs().detach()[0].double()
    noise_S = torch.randn(len(logp_S), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    correct_S = _right_answers(noise_S, logp_S, 0.1)
    rewards = _by_text(language, correct_S)
    a = (logp_S.exp() @ correct_S).item()
    enumerated, formula, trained, kl = [], [], [], []
    for i, beta in enumerate(BETAS):
        tell("reward path", i, len(BETAS))
        exact = optimum(tilted(beta), language, rewards_of(language, rewards))[0]
        enumerated.append((exact @ correct_S).item())
        odds = torch.exp(torch.tensor(1 / beta)).item()
        formula.append(a * odds / (a * odds + 1 - a))
        *_, policy = _trained(language, rewards, tilted(beta), batch=128, steps=150, lr=0.1)
        policy_S = policy.sequence_logprobs().detach()[0].double()
        trained.append((policy_S.exp() @ correct_S).item())
        kl.append((policy_S.exp() @ (policy_S - logp_S)).item())
    return RewardPath(BETAS, enumerated, formula, trained, kl)


def commitment(language: TableLanguage, seeds: int, steps: int, tell: Callable[[str, int, int], None]) -> Commitment:
    """Which response training commits to, by batch size.

    language: of one prompt, the base.
    seeds: independent runs for each batch size.
    steps: of training in each run.
    tell: told how far that is: (what, done, total).

    The runs stand side by side, one a prompt: a table has parameters of its own for each prompt, and Adam works weight
    by weight, so runs that share a batch do not touch each other.
    """
    names = [f"seed {i}" for i in range(seeds)]
    side_by_side = TableLanguage(language.logits.detach().expand(seeds, -1, -1), names)
    mode = int(language.sequence_logprobs()[0].argmax())
    rewards = _by_text(language, torch.zeros(len(language.sequences())))
    target_PS = optimum(tempered(4), side_by_side, rewards_of(side_by_side, rewards))
    every = max(1, steps // 40)
    on_mode, on_top, distance, paths = [], [], [], []
    for i, batch in enumerate(BATCHES):
        tell("batch sizes", i, len(BATCHES))
        path = []
        for step, policy in enumerate(_trained(side_by_side, rewards, sharpening(), batch, steps)):
            if step % every == 0:
                path.append(policy.sequence_logprobs().detach().exp()[:, mode].tolist())
        probability_PS = policy.sequence_logprobs().detach().exp()
        on_mode.append(probability_PS[:, mode].tolist())
        on_top.append(probability_PS.amax(-1).tolist())
        paths.append(path)
        *_, policy = _trained(side_by_side, rewards, tempered(4), batch, steps)
        distance.append(total_variation(policy.sequence_logprobs().detach().exp(), target_PS).tolist())
    return Commitment(BATCHES, on_mode, on_top, distance, paths, every)


def _trained(
    reference: TableLanguage,
    rewards: dict[str, float],
    objective: Objective,
    batch: int,
    steps: int,
    lr: float = LEARNING_RATE,
) -> Iterator[TableLanguage]:
    """The policy before each step and after the last."""
    policy = reference.clone()
    task = Lookup(reference.prompts, rewards)
    config = TrainConfig(steps, len(reference.prompts), batch, reference.max_symbols + 1, micro_batch_tokens=10**9)
    plain = OptimizerConfig(lr=lr, warmup_steps=0, max_grad_norm=float("inf"))
    yield policy
    for _ in train(policy, reference, task, objective, config, Optimizer(policy.trainable(), plain)):
        yield policy


def _right_answers(preference_S: Tensor, logp_S: Tensor, mass: float) -> Tensor:
    """1.0 for the most preferred sequences that together have at most `mass` under p, the rest 0.0."""
    order = preference_S.argsort(descending=True)
    chosen = order[logp_S[order].exp().cumsum(0) <= mass]
    return torch.zeros_like(logp_S).index_fill(0, chosen, 1.0)


def _by_text(language: TableLanguage, values_S: Tensor) -> dict[str, float]:
    return {rollout.text: float(value) for rollout, value in zip(language.enumerated()[0], values_S, strict=True)}
