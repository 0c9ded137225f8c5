"""What a study says, in a line a task, and what must be known before anybody believes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from tiltlab.report.findings import Findings
from tiltlab.report.foretold import method_of
from tiltlab.report.headline import best_sampler
from tiltlab.report.load import Study
from tiltlab.report.styles import family
from tiltlab.report.tables import Row, accuracies
from tiltlab.report.text import number
from tiltlab.storage.files import Json
from tiltlab.verdict.verdict import Outcome, Verdict

_CHIPS: dict[Outcome, tuple[str, str]] = {
    "beyond sharpening": ("taught", "good"),
    "sharpening explains it": ("only sharpened", "plain"),
    "form explains it": ("only form", "plain"),
    "cannot tell": ("cannot tell", "plain"),
    "no gain": ("no gain", "plain"),
    "collapse": ("worse", "bad"),
}
"""The best news first: a task is called by the best outcome of its arms."""


@dataclass(frozen=True)
class Lead:
    """What a study says of one task.

    chip: in a word or two.
    look: of the chip, good, plain or bad.
    words: in one sentence, without the task's name.
    """

    chip: str
    look: str
    words: str


def lead(study: Study, rows: Sequence[Row], task: str, findings: Findings) -> Lead | None:
    """What a study says of a task; None where there is no verdict, for want of a base or of a trained arm.

    rows: of the result table, of any task.
    findings: of this task.
    """
    last = {row.arm: row for row in rows if row.task == task and row.which != "best"}
    base = study.base(task)
    if base is None or not findings.verdicts:
        return None
    best = min(
        findings.verdicts, key=lambda arm: (list(_CHIPS).index(findings.verdicts[arm].outcome), -_height(last[arm]))
    )
    verdict = findings.verdicts[best]
    chip, look = _CHIPS[verdict.outcome]
    if verdict.outcome == "sharpening explains it":
        chip += {"likelihood": " (likelihood)", "answers": " (votes)"}.get(verdict.by or "", "")
    before, after = number(last[base.name].accuracy.value, 2), number(last[best].accuracy.value, 2)
    sampler = best_sampler(study, rows, task)
    ruined = _ruined(study, list(last.values()), findings) if verdict.by == "answers" else ""
    match verdict.outcome:
        case "beyond sharpening":
            said = (
                f"{_capital(best)} lifts {before} to {after}; {_of_sharpening(study, list(last.values()), findings)}."
            )
        case "sharpening explains it" if sampler and sampler.accuracy.value > last[base.name].accuracy.value:
            top = max((last[arm] for arm in findings.verdicts), key=_height)
            said = f"Untrained, {sampler.arm}: {number(sampler.accuracy.value, 2)}; {ruined}"
            said += f"best trained arm, {top.arm}: {number(top.accuracy.value, 2)}; the base: {before}."
        case "sharpening explains it":
            said = f"{_capital(best)} lifts {before} to {after}; {ruined}{_without_training(verdict)}."
        case "form explains it":
            said = f"{_capital(best)} lifts {before} to {after} by ending and answering where it is read."
        case "cannot tell":
            said = f"{_capital(best)}: {before} to {after}"
            said += f"; what it would take to tell: {verdict.needs}." if verdict.needs else "."
        case "no gain":
            said = f"No trained arm is above the base ({before}) by more than chance and 0.05."
        case "collapse":
            said = f"Every trained arm is below the base ({before}); the best of them, {best}: {after}."
    return Lead(chip, look, said)


def caveats(study: Study, findings: Mapping[str, Findings]) -> list[str]:
    """What the figures do not account for, one line each.

    findings: by task.
    """
    counts = sorted({len(accuracies(arm, "last")) for arm in study.arms})
    said = []
    if study.seeds == 1:
        said.append("one seed: how much another training would differ is in no interval")
    said.append(f"{'–'.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} test problems a task")
    if any(one.forecast is None and study.base(task) for task, one in findings.items()):
        said.append("too few samples of the base for a forecast")
    stopped = sum(bool(seeded.stopped) for arm in study.arms for seeded in arm.seeds)
    if stopped:
        said.append(f"{stopped} training{'s' if stopped > 1 else ''} stopped early")
    if ranks := ranks_in_words(study):
        said.append(ranks)
    return said


def ranks_in_words(study: Study) -> str:
    """How many ranks a job had, where that was not always one: figures then differ in the last digits."""
    jobs = [seeded for arm in study.arms for seeded in arm.seeds]
    made = {line.get("ranks", 1) for job in jobs for line in (*job.metrics, job.sampling, job.sampling_best)}
    if max(made) == 1:
        return ""
    return f"made on {' to '.join(str(count) for count in dict.fromkeys((min(made), max(made))))} ranks a job"


def samples_in_words(study: Study) -> str:
    """How many samples of a problem there are: "16 samples", or "16 (math500), 4 (minerva) samples"."""
    return f"{_by_set({test.name: test.n for test in study.tests.values()})} samples"


def limits_in_words(study: Study) -> str:
    """The most tokens of a response while testing: "2048", or "2048 (math500), 4096 (aime24)"."""
    return _by_set({test.name: test.max_tokens for test in study.tests.values()})


def _by_set(numbers: Mapping[str, int | None]) -> str:
    """A number where it is one for all test sets, else each with its set's name."""
    if len(set(numbers.values())) == 1:
        return str(next(iter(numbers.values())))
    return ", ".join(f"{number} ({name})" for name, number in numbers.items())


def cost_in_words(study: Study) -> str:
    """Seconds and tokens that training and sampling took, over all jobs."""
    jobs = [seeded for arm in study.arms for seeded in arm.seeds]
    steps = [line for job in jobs for line in job.metrics]
    seconds = sum(job.sampling["seconds"] for job in jobs)
    seconds += sum(sum(line["seconds"].values()) for line in steps if isinstance(line.get("seconds"), dict))
    tokens = sum(job.sampling["drawn"] for job in jobs)
    tokens += sum(line["tokens"].get("rollout", 0) for line in steps if isinstance(line.get("tokens"), dict))
    took = (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
    drawn = f"{tokens / 1e6:.1f} M" if tokens >= 1e6 else f"{tokens / 1e3:.0f} k" if tokens >= 1e3 else f"{tokens:.0f}"
    return f"{took} of computing and {drawn} tokens in all"


def _of_sharpening(study: Study, last: Sequence[Row], findings: Findings) -> str:
    """What sharpening, trained or not, does on this task."""
    base = next(row for row in last if study.configs[row.arm]["arm"] == "base").accuracy.value
    sharp = [row for row in last if _sharpens(study.configs[row.arm]) and isfinite(row.accuracy.value)]
    if not sharp:
        return "nothing in this study sharpens the base"
    best = max(sharp, key=_height)
    if best.accuracy.value > base:
        return f"the best sharpening, {best.arm}, reaches {number(best.accuracy.value, 2)}"
    fallen = _fallen(sharp, findings)
    return f"sharpening ruins it ({number(fallen, 2)})" if fallen is not None else "no sharpening tried beats the base"


def _sharpens(config: Json) -> bool:
    """Whether an arm sharpens the base without a label, by its likelihood or by its answers. Powers below 1, and
    temperatures above, flatten it."""
    match config:
        case {"alpha": alpha} if alpha < 1:
            return False
        case {"arm": "temperature", "temperature": temperature} if temperature > 1:
            return False
    return family(config) in ("sampler", "likelihood") or method_of(config) is not None


def _ruined(study: Study, last: Sequence[Row], findings: Findings) -> str:
    """Where likelihood ruins what votes do not."""
    arms = study.configs
    likelier = [row for row in last if family(arms[row.arm]) == "likelihood" and _sharpens(arms[row.arm])]
    fallen = _fallen(likelier, findings)
    return f"likelihood sharpening ruins it ({number(fallen, 2)}); " if fallen is not None else ""


def _fallen(rows: Sequence[Row], findings: Findings) -> float | None:
    """The lowest accuracy of arms that are worse than the base; None where none is."""
    collapsed = {arm for arm, verdict in findings.verdicts.items() if verdict.outcome == "collapse"}
    return min((_height(row) for row in rows if row.arm in collapsed), default=None)


def _without_training(verdict: Verdict) -> str:
    """What explains a gain, where no arm of the study samples the base so."""
    sharpened = verdict.sharpened
    if sharpened is None:
        return "sharpening alone does as much"
    of = {"likelihood": sharpened.likelihood, "answers": sharpened.answers}.get(verdict.by or "") or sharpened
    return f"without training, {of.named}: {number(of.accuracy.value, 2)}"


def _height(row: Row) -> float:
    return row.accuracy.value if isfinite(row.accuracy.value) else -1.0


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
