"""Records -> rows of figures with intervals.

Intervals are over problems (95 %). With several seeds a problem's value is its mean over them, and the spread of the
seeds' own accuracies is given beside it, with Student's t interval over seeds.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from tiltlab.forecast.frontier import kl_by_z
from tiltlab.report.load import ArmOnTask, Study
from tiltlab.stats.by_problem import accuracy, by_problem, correct, graded
from tiltlab.stats.metrics import Interval, majorities, mean_interval, pass_at_k, share_interval
from tiltlab.stats.paired import difference_interval
from tiltlab.storage.files import Json
from tiltlab.types import Record

Group = Sequence[Record]
"""The samples of one problem."""

_UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Row:
    """One arm on one task, at its last or its best checkpoint.

    task, arm: by name.
    which: last, best, or "" for an arm that is not trained.
    is_best: whether it is the best checkpoint; the last one may be.
    steps: of the checkpoint, for each seed; empty for an arm that is not trained.
    accuracy: over graded responses.
    gain: accuracy above the base's, problem by problem, with the verdict's interval (`difference_interval`); None for
        the base itself, and where there is none.
    pass_k, maj_k: pass@k and maj@k.
    k: the fewest samples of a problem.
    length: of a response, in tokens; NaN where nobody knows it.
    truncated, ungraded: shares of responses.
    logp: log p under the base, in nats a response, over complete responses; over all where truncated ones were trained
        on.
    kl: log pi - log p, in nats a response, over the same: how far the arm went from the base. NaN for an arm
        that samples at a temperature: the records' log pi is then not of the distribution that was sampled. For
        PowerSMC by its own estimate of Z, which makes it a little too large where populations are small (log is
        concave).
    tokens_used: that the model was asked for, drawn or scored again, for one response.
    warnings: what the sampler had to say against its own samples, and which seeds an alarm ended early.
    seed_accuracies: one a seed.
    over_seeds: mean of the seeds' accuracies; None for one seed.
    """

    task: str
    arm: str
    which: str
    is_best: bool
    steps: list[int]
    accuracy: Interval
    gain: Interval | None
    pass_k: Interval
    maj_k: Interval
    k: int
    length: Interval
    truncated: float
    ungraded: float
    logp: Interval
    kl: Interval
    tokens_used: float
    warnings: list[str]
    seed_accuracies: list[float]
    over_seeds: Interval | None

    @property
    def checkpoint(self) -> str:
        """Which one it is, as people read it."""
        return "last = best" if self.which == "last" and self.is_best else self.which


def result_rows(study: Study) -> list[Row]:
    """All rows of a study, task by task.

    Trained arms have one for the last checkpoint, and where that is not the best with every seed, one for the best.
    """
    rows: list[Row] = []
    for task in study.tasks:
        base = study.base(task)
        baseline = accuracies(base, "last") if base else None
        rows += [
            _row(arm, which, None if arm is base else baseline, study.keeps_truncated)
            for arm in study.on(task)
            for which in (("last",) if _last_is_best(arm) else ("last", "best"))
        ]
    return rows


def accuracies(arm: ArmOnTask, which: str) -> dict[str, float]:
    """Accuracy by problem, averaged over seeds, NaN where nothing is graded.

    which: checkpoint, "last" or "best".
    """
    return _over_seeds(arm, which, accuracy)


def curve_at_k(arm: ArmOnTask, which: str, kind: str) -> list[tuple[int, Interval]]:
    """(k, pass@k or maj@k) for k = 1 to the number of samples.

    which: checkpoint, "last" or "best".
    kind: "pass" or "maj".
    """
    at_k = _pass_at if kind == "pass" else _maj_at
    n = min(len(group) for group in by_problem(arm.seeds[0].last).values())
    return [(k, share_interval(list(at_k(arm, which, k).values()))) for k in range(1, n + 1)]


def pass_of(group: Group, k: int) -> float:
    """pass@k of the graded samples of a problem; NaN where there are fewer than k."""
    right = correct(group)
    return pass_at_k(len(right), sum(right), k)


def _pass_at(arm: ArmOnTask, which: str, k: int) -> dict[str, float]:
    """pass@k by problem, averaged over seeds."""
    return _over_seeds(arm, which, partial(pass_of, k=k))


def _maj_at(arm: ArmOnTask, which: str, k: int) -> dict[str, float]:
    """maj@k of the graded samples by problem, averaged over seeds; NaN where there are fewer than k."""

    def of_problems(groups: Sequence[Group]) -> list[float]:
        return majorities([([record.answer for record in graded(group)], correct(group)) for group in groups], k)

    return _all_over_seeds(arm, which, of_problems)


def at_k(rows: Sequence[Row], kind: str) -> str:
    """What the column of pass@k or maj@k is called: with its k where that is one for all rows, else pass@n, n being the
    samples of the row's test set.

    kind: "pass" or "maj".
    """
    ks = {row.k for row in rows}
    return f"{kind}@{ks.pop() if len(ks) == 1 else 'n'}"


def _last_is_best(arm: ArmOnTask) -> bool:
    return all(not seeded.steps or seeded.steps["last"] == seeded.steps["best"] for seeded in arm.seeds)


def _row(arm: ArmOnTask, which: str, baseline: dict[str, float] | None, keeps_truncated: bool) -> Row:
    shares = accuracies(arm, which)
    records = [record for seeded in arm.seeds for record in getattr(seeded, which)]
    seeds = [_mean([accuracy(group) for group in by_problem(getattr(seeded, which)).values()]) for seeded in arm.seeds]
    k = min(len(group) for group in by_problem(arm.seeds[0].last).values())

    def mean(value: Callable[[Record], float], truncated: bool = True) -> Interval:
        def of_problem(group: Group) -> float:
            return _mean([value(r) for r in group if r.complete or truncated])

        return mean_interval(list(_over_seeds(arm, which, of_problem).values()))

    return Row(
        task=arm.task,
        arm=arm.name,
        which=which if arm.trained else "",
        is_best=arm.trained and (which == "best" or _last_is_best(arm)),
        steps=[seeded.steps[which] for seeded in arm.seeds if seeded.steps],
        accuracy=share_interval(list(shares.values())),
        gain=_gain(shares, baseline) if baseline else None,
        pass_k=share_interval(list(_pass_at(arm, which, k).values())),
        maj_k=share_interval(list(_maj_at(arm, which, k).values())),
        k=k,
        length=mean(lambda r: float(r.tokens or "nan")),
        truncated=_mean([float(not r.complete) for r in records]),
        ungraded=_mean([float(np.isnan(r.reward)) for r in records]),
        logp=mean(lambda r: r.ref_logp, keeps_truncated),
        kl=mean(lambda r: r.logp - r.ref_logp, keeps_truncated) if arm.own_distribution else _kl_by_z(arm),
        tokens_used=_mean(
            [_tokens_used(seeded.sampling_best if which == "best" else seeded.sampling) for seeded in arm.seeds]
        ),
        warnings=[
            *sorted({warning for seeded in arm.seeds for warning in seeded.sampling["warnings"]}),
            *(f"seed {seeded.seed} stopped early, {seeded.stopped}" for seeded in arm.seeds if seeded.stopped),
        ],
        seed_accuracies=seeds,
        over_seeds=mean_interval(seeds) if len(seeds) > 1 else None,
    )


def _gain(accuracy: Mapping[str, float], baseline: Mapping[str, float]) -> Interval | None:
    """Problem by problem; None where the two share no problem."""
    gains = [accuracy[problem] - value for problem, value in baseline.items() if problem in accuracy]
    known = np.array([gain for gain in gains if not np.isnan(gain)])
    return (difference_interval(known) if len(known) else _UNKNOWN) if gains else None


def _kl_by_z(arm: ArmOnTask) -> Interval:
    """KL of a distribution p^alpha exp(r / beta) / Z that was sampled and whose Z was estimated, over problems and
    seeds."""
    if not arm.knows_kl:
        return _UNKNOWN
    values: dict[str, list[float]] = defaultdict(list)
    for seeded in arm.seeds:
        log_z = seeded.sampling["notes"]["log_z"]
        for problem, kl in kl_by_z(seeded.last, log_z, arm.config["alpha"], arm.config.get("beta")).items():
            values[problem].append(kl)
    return mean_interval([_mean(of_seeds) for of_seeds in values.values()])


def _tokens_used(sampling: Json) -> float:
    return float((sampling["drawn"] + sampling["rescored"]) / sampling["responses"])


def _over_seeds(arm: ArmOnTask, which: str, value: Callable[[Group], float]) -> dict[str, float]:
    """value(samples of a problem), averaged over seeds; problems in order of first appearance."""
    return _all_over_seeds(arm, which, lambda groups: [value(group) for group in groups])


def _all_over_seeds(
    arm: ArmOnTask, which: str, values_of: Callable[[Sequence[Group]], Sequence[float]]
) -> dict[str, float]:
    """Likewise, with the values of all problems of a seed told at once."""
    values: dict[str, list[float]] = defaultdict(list)
    for seeded in arm.seeds:
        groups = by_problem(getattr(seeded, which))
        for problem, value in zip(groups, values_of(list(groups.values())), strict=True):
            values[problem].append(value)
    return {problem: _mean(of_seeds) for problem, of_seeds in values.items()}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else float("nan")
