"""What a gain is made of: did the tuned model learn something, or is it the base, sharpened? From records alone. Pure.

The question put to the data: how much of the gain would the best sharpening of the base have had, chosen on one half of
the problems and scored on the other? Sharpenings are p^alpha, told from the base's samples (forecast.py) as far as they
support it, and whatever was drawn from the base by samplers that know nothing but its likelihood (`rivals`).

Left out on purpose: anything that needs a model. Whoever has both models can score the base's responses under the tuned
one (`cross_logp`): samples of both then stand in for p^alpha, and reach further along the path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from scipy.special import softmax

from tiltlab.forecast.forecast import forecast
from tiltlab.forecast.importance import enough, estimate
from tiltlab.forecast.weighted_samples import Floats, Ints, WeightedSamples, from_records, some_problems
from tiltlab.stats.by_problem import accuracy, by_problem
from tiltlab.stats.metrics import Interval
from tiltlab.stats.paired import Comparison, compare
from tiltlab.types import Record
from tiltlab.verdict.solved_problems import Profile, SolvedProblems, profile, solved_problems

Outcome = Literal["beyond sharpening", "sharpening explains it", "no gain", "collapse", "cannot tell"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

ALPHAS = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)

MARGIN = 0.05
"""Of accuracy: a gain smaller than this, either way, is none worth the name."""

MOST = 0.8
"""Of the gain: what sharpening must recover for sure to explain it, whatever is left over."""

RESAMPLES = 1000

_NONE = "alpha 1, none"


@dataclass(frozen=True)
class Sharpened:
    """What the best sharpening of the base would have, on held-out halves of the problems.

    accuracy: its own. recovered: its share of the tuned model's gain. rest: accuracy of the tuned model beyond it.
    chosen: which sharpening each half chose. reach: the largest alpha that the samples support; covers: whether some
    sharpening is as likely under the base as the tuned model's responses are, so that what lies beyond it on the path
    (where log p rises) is no closer to what the tuned model does.
    """

    accuracy: Interval
    recovered: Interval
    rest: Interval
    chosen: tuple[str, ...]
    reach: float
    covers: bool

    @property
    def named(self) -> str:
        """What was chosen, for people."""
        return " and ".join("the base as it is" if name == _NONE else name for name in self.chosen)


@dataclass(frozen=True)
class Verdict:
    """The outcome, why, and what it rests on. needs: what would decide it, where nothing is decided."""

    outcome: Outcome
    why: str
    needs: str | None
    gain: Comparison
    sharpened: Sharpened | None
    solved_problems: SolvedProblems
    base: Profile
    tuned: Profile


@dataclass(frozen=True)
class BasePath:
    """How far samples of a base reach along p^alpha, the path on which its likelihood alone sharpens it.

    samples: of the P problems that have enough of them.
    accuracy: of each problem, [P], by every alpha >= 1 that is supported, in order; estimates may leave [0, 1].
    """

    samples: WeightedSamples
    accuracy: dict[float, Floats]

    @property
    def reach(self) -> float:
        """The largest alpha that is supported; 1, the base itself, where none is."""
        return max(self.accuracy, default=1.0)


def base_path(samples: WeightedSamples) -> BasePath:
    """Told from samples of a base. Where fewer than two problems have enough of them, no alpha is supported."""
    samples = some_problems(samples, enough(samples))
    points = forecast(samples, ALPHAS, ()).points if len(samples.problems) >= 2 else ()
    supported = [point.alpha for point in points if point.supported]
    return BasePath(samples, {alpha: estimate(samples, alpha, 0.0).corrected[:, 0] for alpha in supported})


@dataclass(frozen=True)
class Evidence:
    """What a verdict is about: responses of two models to the same problems.

    base, tuned: samples of either model at temperature 1, with the base's log p in `ref_logp`; tuned ones with the
        tuned model's in `logp`. In nats a response, as all log-probabilities here.
    cross_logp: of each base response under the tuned model, in the order of `base`; None where nobody scored it.
    rivals: by name, samples drawn from the base by a sampler that knows nothing but its likelihood, with the base's
        log p in `ref_logp`.
    powers: likewise, of samplers that target a p^alpha: only these tell how likely responses get along that path.
    path: what samples of the base tell of its sharpening, where somebody knows already: told once, it serves any
        number of tuned models, and samples beyond those in `base` may have gone into it, which then count in nothing
        else (of problems solved, both models are to have the same chances). None: it is told from `base`, and with a
        cross_logp from `tuned` too.

    Raises ValueError for a path beside a cross_logp: it was told without the tuned model's samples.
    """

    base: Sequence[Record]
    tuned: Sequence[Record]
    cross_logp: Sequence[float] | None = None
    rivals: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    powers: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    path: BasePath | None = None

    def __post_init__(self) -> None:
        if self.path is not None and self.cross_logp is not None:
            raise ValueError("a path of further samples of the base lacks the tuned model's log-probabilities")


def decide(evidence: Evidence, margin: float = MARGIN, seed: int = 0) -> Verdict:
    """The verdict. margin: of accuracy, what is no gain worth the name. seed: of the resampling of problems.

    Raises ValueError where the two models have no graded problem in common, and UserError for records without the
    log-probabilities that it takes.
    """
    base, tuned = evidence.base, evidence.tuned
    gain = compare(base, tuned, seed)
    sharpened = _sharpened(evidence, seed)
    of_base, of_tuned = profile(base), profile(tuned)
    outcome, why, needs = _decide(gain, sharpened, of_base, of_tuned, margin)
    return Verdict(outcome, why, needs, gain, sharpened, solved_problems(base, tuned), of_base, of_tuned)


def _decide(
    gain: Comparison, sharpened: Sharpened | None, base: Profile, tuned: Profile, margin: float
) -> tuple[Outcome, str, str | None]:
    d = gain.difference
    told = f"accuracy {gain.a.value:.3f} → {gain.b.value:.3f} ({_signed(d)} on {gain.problems} problems)"
    if np.isnan(d.low):
        return (
            "cannot tell",
            f"One problem gives no interval: accuracy {gain.a.value:.3f} → {gain.b.value:.3f}.",
            ("more problems"),
        )
    if d.high < 0:
        fell = [text for name, text in _FELL.items() if getattr(tuned, name) < 0.5 * getattr(base, name)]
        if tuned.truncated > base.truncated + 0.25:
            fell.append(f"{tuned.truncated:.0%} of its responses are truncated, {base.truncated:.0%} of the base's are")
        return "collapse", f"The tuned model is worse: {told}" + (f"; {', '.join(fell)}." if fell else "."), None
    if d.low <= 0:
        if -margin < d.low and d.high < margin:
            return "no gain", f"Nothing beyond {margin:g} either way: {told}.", None
        more = int(np.ceil(gain.problems * ((d.high - d.low) / 2 / margin) ** 2))
        return "cannot tell", f"The interval holds both a gain and none: {told}.", f"about {more} problems"
    if sharpened is None:
        return "cannot tell", f"A gain: {told}; but the base's samples support no forecast.", _MORE_SAMPLES
    return _of_a_gain(told, gain.b.value, sharpened)


def _of_a_gain(told: str, reached: float, sharpened: Sharpened) -> tuple[Outcome, str, str | None]:
    share, rest = sharpened.recovered, sharpened.rest
    by = _by_sharpening(reached, sharpened)
    if share.low >= MOST:
        return "sharpening explains it", f"A gain: {told}; {by}.", None
    if rest.low > 0 and sharpened.covers:
        return "beyond sharpening", f"A gain: {told}; {by}.{_beyond(sharpened)}", None
    if share.low >= 0.5 and rest.low <= 0:
        return "sharpening explains it", f"A gain: {told}; {by}, and what is left may be nothing.", None
    why = f"A gain: {told}; up to alpha {sharpened.reach:g}, as far as the samples support it, {by}"
    if not sharpened.covers:
        return "cannot tell", f"{why}; the tuned model's responses are likelier than that.", _MORE_SAMPLES
    return "cannot tell", f"{why}.", "more problems"


def _by_sharpening(reached: float, sharpened: Sharpened) -> str:
    """What sharpening comes to. A share is given where it is one: sharpening may reach more than training did."""
    if _is_none(sharpened):
        return "no sharpening tried beats the base"
    by = f"sharpening alone ({sharpened.named}) reaches {sharpened.accuracy.value:.3f}, training reached {reached:.3f}"
    return f"{by} ({_percent(sharpened.recovered)} of the gain)" if 0 <= sharpened.recovered.value <= 1 else by


def _beyond(sharpened: Sharpened) -> str:
    """Beyond no sharpening lies the whole gain, which is told already."""
    return "" if _is_none(sharpened) else f" Beyond sharpening: {_signed(sharpened.rest)}."


def _is_none(sharpened: Sharpened) -> bool:
    return set(sharpened.chosen) == {_NONE}


_FELL = {
    "length": "its responses are less than half as long",
    "distinct": "it gives less than half as many different answers",
    "entropy": "its answers have less than half the entropy",
}
_MORE_SAMPLES = "more samples a problem, or both models, so that samples of the tuned one can be weighed too"


def _percent(share: Interval) -> str:
    return f"{100 * share.value:z.0f} % [{100 * share.low:z.0f}, {100 * share.high:z.0f}]"


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _sharpened(evidence: Evidence, seed: int) -> Sharpened | None:
    path = evidence.path or base_path(_weighted_samples(evidence))
    if len(path.samples.problems) < 2:
        return None
    tuned, powers, problems = evidence.tuned, evidence.powers, path.samples.problems
    base_P, tuned_P = (_accuracies(records, problems) for records in (evidence.base, tuned))
    rows = {_NONE: base_P}  # not to sharpen is always a choice
    rows |= {f"alpha {alpha:g}": accuracy_P for alpha, accuracy_P in path.accuracy.items() if alpha > 1}
    rows |= {name: _accuracies(records, problems) for name, records in (*evidence.rivals.items(), *powers.items())}
    known = ~np.isnan(np.stack([base_P, tuned_P, *rows.values()])).any(0)
    if not (path.accuracy or evidence.rivals or powers) or known.sum() < 2:
        return None
    held_out, chosen = _held_out(np.stack(list(rows.values()))[:, known], base_P[known], tuned_P[known], seed)
    covers = _covers(_on_path(path), tuned) or any(_covers(_logps(records), tuned) for records in powers.values())
    return Sharpened(*held_out, tuple(list(rows)[i] for i in chosen), path.reach, covers)


def _weighted_samples(evidence: Evidence) -> WeightedSamples:
    """Samples of the base; with a cross_logp those of both models, as of their mixture."""
    base, tuned = evidence.base, evidence.tuned
    if evidence.cross_logp is None:
        return from_records(base)
    records = [*base, *tuned]
    log_q_KN = np.array([[r.ref_logp for r in records], [*evidence.cross_logp, *(r.logp for r in tuned)]])
    return from_records(records, log_q_KN, np.repeat([0, 1], [len(base), len(tuned)]))


def _held_out(
    table_AP: Floats, base_P: Floats, tuned_P: Floats, seed: int
) -> tuple[tuple[Interval, Interval, Interval], list[int]]:
    """Intervals of the accuracy, the recovered share and the rest, by resampling problems; and the rows chosen."""
    generator = np.random.default_rng(seed)
    halves = np.array_split(generator.permutation(len(base_P)), 2)
    resampled = [halves] + [[generator.choice(half, len(half)) for half in halves] for _ in range(RESAMPLES)]
    values = np.array([_figures(table_AP, base_P, tuned_P, pair) for pair in resampled])
    chosen = sorted({int(table_AP[:, half].mean(1).argmax()) for half in halves})
    low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
    intervals = [Interval(float(values[0, i]), float(low[i]), float(high[i])) for i in range(3)]
    return (intervals[0], intervals[1], intervals[2]), chosen


def _figures(table_AP: Floats, base_P: Floats, tuned_P: Floats, halves: Sequence[Ints]) -> tuple[float, float, float]:
    one, other = halves
    best_one, best_other = (int(table_AP[:, half].mean(1).argmax()) for half in halves)
    both = np.concatenate([other, one])
    sharpened = float(np.concatenate([table_AP[best_one, other], table_AP[best_other, one]]).mean())
    sharpened = min(1.0, max(0.0, sharpened))
    before, after = float(base_P[both].mean()), float(tuned_P[both].mean())
    share = (sharpened - before) / (after - before) if after > before else 0.0
    return sharpened, share, after - sharpened


def _on_path(path: BasePath) -> dict[str, float]:
    """E[log p] by problem under the last p^alpha that is supported. It rises with alpha: its slope is the variance of
    log p."""
    samples = path.samples
    weight_PN = softmax(np.where(samples.used, path.reach * samples.logp - samples.log_q, -np.inf), axis=1)
    return dict(zip(samples.problems, (weight_PN * samples.logp).sum(1).tolist(), strict=True))


def _covers(logp: Mapping[str, float], tuned: Sequence[Record]) -> bool:
    """Whether log p has reached that of the tuned responses, problem by problem: in the mean, within two standard
    errors, and on half of the problems (a few absurd responses move a mean)."""
    of_tuned = _logps(tuned)
    lead = np.array([value - of_tuned[name] for name, value in logp.items() if name in of_tuned])
    if len(lead) < 2:
        return False
    return bool(lead.mean() > -2 * lead.std(ddof=1) / np.sqrt(len(lead)) and (lead > -0.01).mean() >= 0.5)


def _logps(records: Sequence[Record]) -> dict[str, float]:
    """Median log p of complete responses by problem."""
    groups = by_problem(record for record in records if record.complete)
    return {name: float(np.median([record.ref_logp for record in group])) for name, group in groups.items()}


def _accuracies(records: Sequence[Record], problems: Sequence[str]) -> Floats:
    """By problem, in this order; NaN where nothing is graded."""
    groups = by_problem(records)
    return np.array([accuracy(groups.get(name, ())) for name in problems])
