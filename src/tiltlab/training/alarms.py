"""What a training run tells about itself that somebody should look at: from its metrics and evaluations alone. Pure.

Every alarm looks at the mean of the last few steps, most beside that of the first few, so that one noisy batch fires
nothing; rewards and groups, the noisiest, over as many steps as it takes for enough of them; the mismatch of sampler
and trainer, a mean over so many tokens that it hardly varies, at each step by itself. Evaluations are compared with an
allowance for their noise. An alarm fires once a run, at the first step where it holds. docs/alarms.md says what to
make of each.

Left out on purpose: verdicts. A collapse of entropy may be what a regime is for; whether the gain is worth it is for
the verdict to say.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil, inf, isfinite, nan, sqrt
from statistics import NormalDist
from typing import Any, Literal

Kind = Literal[
    "length collapse",
    "length explosion",
    "entropy collapse",
    "KL run-away",
    "likelihood without accuracy",
    "no signal",
    "reward-scale imbalance",
    "best above last",
    "repeated text",
    "sampler mismatch",
    "few effective responses",
]

WINDOW = 5
"""Steps that are averaged, at the start and now."""

RESPONSES, GROUPS = 512, 64
"""What figures of rewards are averaged over at least, in more steps where batches are small: a mean of 512
right-or-wrong rewards, and a share of 64 groups, have standard errors of at most .022 and .063."""

SHORTER, LONGER = 0.5, 3.0
"""Lengths, as multiples of that at the start, beyond which responses have collapsed or exploded."""

TRUNCATED, REPEATED = 0.25, 0.2
"""By how much the share of truncated, or of self-repeating, responses may rise."""

LESS_ENTROPY = 0.2
"""Of the entropy at the start: below it, little is left to explore."""

KL_A_TOKEN, KL_A_RESPONSE = 0.3, 5.0
"""Nats: a policy that far from its reference, by token and in all, no longer tells the same kind of text."""

LIKELIER, BETTER = 0.25, 0.02
"""Log p under the base up by this share of its start, the reward by no more than that: likelihood without accuracy."""

SOLVED = 0.9
"""Accuracy on the validation split from which on groups without a signal are no news."""

NO_SIGNAL = 0.5
"""Share of groups whose responses all score the same, without the reward having risen by GAP: not for being solved."""

IMBALANCE = 100.0
"""Ratio of the spreads within groups of two terms of the objective: the smaller one is not heard."""

GAP = 0.1
"""Of accuracy or reward: by which the best evaluation may lie above the last."""

LEVEL = 0.01
"""Chance, at most, that a drop between evaluations of one and the same policy counts, over a whole run."""

MISMATCH = 0.1
"""Nats a token between what drew a response and the trainer: no rounding, of bf16 neither, makes so much."""

FINE, COARSE = 1e-4, 0.03
"""Nats a token that rounding of float32, and of bf16, does not come near in the mean of a step."""

JUMP = 10.0
"""Of the mismatch, as a multiple of that of the first step."""

FEW = 0.1
"""Of the responses' number, the effective one: below it, an update is one of a few responses' making."""

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """One alarm that fired.

    kind: what it warns of.
    step: steps done when it fired.
    message: the figures that made it fire.
    """

    kind: Kind
    step: int
    message: str

    def __str__(self) -> str:
        return f"{self.kind} at step {self.step}: {self.message}"


class Watch:
    """Looks at one run as it goes, a line at a time. Its `fired` holds all alarms so far; each kind fires once."""

    def __init__(self) -> None:
        self._spans: tuple[_Span, ...] = ()
        self._evaluations: list[Line] = []
        self.fired: list[Alarm] = []

    def stepped(self, line: Line) -> list[Alarm]:
        """What fires with this line of metrics.jsonl."""
        if not self._spans:
            long = _steps_for_rewards(line)
            self._spans = _Span(1, _CHECKS_OF_A_STEP), _Span(WINDOW, _CHECKS), _Span(long, _CHECKS_OF_REWARDS)
        accuracy = self._evaluations[-1]["accuracy"] if self._evaluations else nan
        said = [span.look({**line, "accuracy": accuracy}) for span in self._spans]
        return self._fire(line["step"] + 1, {kind: text for one in said for kind, text in one.items()})

    def evaluated(self, line: Line) -> list[Alarm]:
        """What fires with this line of select.jsonl."""
        self._evaluations.append(line)
        return self._fire(
            line["step"],
            {"best above last": _fell_back(self._evaluations), "likelihood without accuracy": _lost(self._evaluations)},
        )

    def _fire(self, step: int, said: Mapping[Kind, str | None]) -> list[Alarm]:
        before = {alarm.kind for alarm in self.fired}
        new = [Alarm(kind, step, text) for kind, text in said.items() if text and kind not in before]
        self.fired += new
        return new


def alarms(metrics: Sequence[Line], validation: Sequence[Line]) -> list[Alarm]:
    """All that fired in a run, in order.

    metrics: lines of metrics.jsonl.
    validation: lines of select.jsonl.
    """
    return watched(metrics, validation).fired


def watched(metrics: Sequence[Line], validation: Sequence[Line]) -> Watch:
    """A watch that has seen these lines, each evaluation after the steps that came before it.

    metrics: lines of metrics.jsonl.
    validation: lines of select.jsonl.
    """
    watch = Watch()
    steps = ((line["step"] + 1, 0, watch.stepped, line) for line in metrics)
    evaluations = ((line["step"], 1, watch.evaluated, line) for line in validation)
    for *_, see, line in sorted(chain(steps, evaluations), key=lambda event: event[:2]):
        see(line)
    return watch


class _Span:
    """The first and the last `steps` lines, and what checks say of the two."""

    def __init__(self, steps: int, checks: "Mapping[Kind, _Check]") -> None:
        self._first: list[Line] = []
        self._last: deque[Line] = deque(maxlen=steps)
        self._steps, self._checks = steps, checks

    def look(self, line: Line) -> dict[Kind, str | None]:
        if len(self._first) < self._steps:
            self._first.append(line)
        self._last.append(line)
        if len(self._first) < self._steps:
            return {}
        start, now = _Means(self._first), _Means(self._last)
        return {kind: check(start, now) for kind, check in self._checks.items()}


def _steps_for_rewards(line: Line) -> int:
    """So many that both are reached; WINDOW where nobody says how many there are."""
    responses, groups = float(line.get("responses", inf)), float(line.get("groups", inf))
    return max(WINDOW, ceil(RESPONSES / responses), ceil(GROUPS / groups))


class _Means:
    """Means of the figures of some steps, NaN for one that is missing."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines

    def __getitem__(self, key: str) -> float:
        values = [line[key] for line in self._lines if isinstance(line.get(key), int | float) and isfinite(line[key])]
        return sum(values) / len(values) if values else nan


def _shorter(start: _Means, now: _Means) -> str | None:
    if now["length"] < SHORTER * start["length"]:
        return f"responses went from {start['length']:.1f} tokens to {now['length']:.1f}"
    return None


def _longer(start: _Means, now: _Means) -> str | None:
    if now["length"] > LONGER * start["length"]:
        return f"responses went from {start['length']:.1f} tokens to {now['length']:.1f}"
    if now["truncated"] > start["truncated"] + TRUNCATED:
        return f"{now['truncated']:.0%} of responses are truncated, {start['truncated']:.0%} were"
    return None


def _less_entropy(start: _Means, now: _Means) -> str | None:
    if now["entropy"] < LESS_ENTROPY * start["entropy"]:
        return f"{now['entropy']:.3f} nats a token are left of {start['entropy']:.3f}"
    return None


def _far_away(_: _Means, now: _Means) -> str | None:
    if now["kl"] > max(KL_A_RESPONSE, KL_A_TOKEN * now["length"]):
        return f"{now['kl']:.1f} nats a response of {now['length']:.0f} tokens from the reference"
    return None


def _only_likelier(start: _Means, now: _Means) -> str | None:
    rise = now["ref_logp"] - start["ref_logp"]
    if rise > LIKELIER * abs(start["ref_logp"]) and now["reward"] < start["reward"] + BETTER:
        said = f"log p under the base went from {start['ref_logp']:.1f} to {now['ref_logp']:.1f} nats a response, "
        return said + f"the reward from {start['reward']:.2f} to {now['reward']:.2f}"
    return None


def _nothing_to_learn(start: _Means, now: _Means) -> str | None:
    nothing_asked = now["term_reward"] == now["term_sharpen"] == 0 and now["reward_spread"] > 0  # the null control
    solved = now["accuracy"] >= SOLVED or now["reward"] > start["reward"] + GAP
    if now["no_signal"] > NO_SIGNAL and not nothing_asked and not solved:
        said = f"in {now['no_signal']:.0%} of groups no two responses score differently"
        return said + f" (mean reward {now['reward']:.2f}, {now['truncated']:.0%} of responses truncated)"
    return None


def _unheard(_: _Means, now: _Means) -> str | None:
    reward, sharpen, kl = (now[f"spread_{term}"] for term in ("reward", "sharpen", "kl"))
    if 0 < IMBALANCE * reward < max(sharpen, kl):
        return f"within a group the reward term varies by {reward:.2g}, the likelihood by {max(sharpen, kl):.2g}"
    if 0 < IMBALANCE * sharpen < reward:
        return f"within a group the likelihood term varies by {sharpen:.2g}, the reward by {reward:.2g}"
    return None


def _rambling(start: _Means, now: _Means) -> str | None:
    if now["repeated"] > start["repeated"] + REPEATED:
        return f"{now['repeated']:.0%} of responses end in a loop, {start['repeated']:.0%} did"
    return None


def _not_what_is_trained(start: _Means, now: _Means) -> str | None:
    before, mismatch = start["mismatch_mean"], now["mismatch_mean"]
    if mismatch > _most_by_rounding(before):
        said = f"what drew the responses and the trainer are {mismatch:.2g} nats a token apart"
        return said + (f", {before:.2g} at the first step" if before < mismatch else "")
    return None


def _most_by_rounding(first: float) -> float:
    """The first step tells how finely is rounded: its weights are those that both began with."""
    return FINE if first < FINE / JUMP else min(MISMATCH, max(COARSE, JUMP * first))


def _few_count(_: _Means, now: _Means) -> str | None:
    if now["ess"] < FEW:
        said = f"under pi / q the responses of a step count as {now['ess']:.0%} of their number"
        return said + f" (mismatch {now['mismatch_mean']:.2g} nats a token, {now['length']:.0f} tokens a response)"
    return None


def _fell_back(evaluations: Sequence[Line]) -> str | None:
    *before, now = evaluations
    best = max((line for line in before if line["accuracy"] > now["accuracy"]), key=_accuracy, default=now)
    if best["accuracy"] - now["accuracy"] > max(GAP, _noise(best, now, len(evaluations))):
        said = f"accuracy on the validation split was {best['accuracy']:.2f} after step {best['step']}"
        return said + f" and is {now['accuracy']:.2f}"
    return None


def _lost(evaluations: Sequence[Line]) -> str | None:
    """A run that may please its reward, and gets likelier, and worse."""
    first, now = evaluations[0], evaluations[-1]
    start, end = _Means([first])["ref_logp"], _Means([now])["ref_logp"]
    drop = first["accuracy"] - now["accuracy"]
    if end - start > LIKELIER * abs(start) and drop > max(BETTER, _noise(first, now, len(evaluations))):
        said = f"log p under the base went from {start:.1f} to {end:.1f} nats a response, "
        return said + f"accuracy on the validation split from {first['accuracy']:.2f} to {now['accuracy']:.2f}"
    return None


def _accuracy(line: Line) -> float:
    return float(line["accuracy"])


def _noise(one: Line, other: Line, number: int) -> float:
    """By how much accuracy may fall by chance from an earlier evaluation to the last, the `number`-th. It is compared
    with number - 1 earlier ones, each at LEVEL / number / (number - 1)^2, which comes to LEVEL over a run however long.
    Responses count as independent: right for one response a problem, and careful for more, as responses to the same
    problem vary less."""
    if number < 2:
        return inf
    level = LEVEL / number / (number - 1) ** 2
    return NormalDist().inv_cdf(1 - level) * sqrt(_variance(one) + _variance(other))


def _variance(line: Line) -> float:
    """Of an accuracy; of one of 0 or 1 too, by one right and one wrong response more (Agresti and Coull, 1998)."""
    graded = line.get("graded") or inf  # none: then there is no accuracy either
    accuracy = (line["accuracy"] + 1 / graded) / (1 + 2 / graded)
    return float(accuracy * (1 - accuracy) / graded)


_Check = Callable[[_Means, _Means], str | None]

_CHECKS_OF_A_STEP: dict[Kind, _Check] = {
    "sampler mismatch": _not_what_is_trained,
}

_CHECKS: dict[Kind, _Check] = {
    "length collapse": _shorter,
    "length explosion": _longer,
    "entropy collapse": _less_entropy,
    "KL run-away": _far_away,
    "reward-scale imbalance": _unheard,
    "repeated text": _rambling,
    "few effective responses": _few_count,
}

_CHECKS_OF_REWARDS: dict[Kind, _Check] = {
    "likelihood without accuracy": _only_likelier,
    "no signal": _nothing_to_learn,
}
