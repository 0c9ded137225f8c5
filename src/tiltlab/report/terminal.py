"""The result tables on a terminal, or in whatever else the output goes to."""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiltlab.forecast.forecast import Forecast
from tiltlab.forecast.steps import PRICE
from tiltlab.report.alarms import FiredAlarm, fired_alarms
from tiltlab.report.compare import Compared
from tiltlab.report.console import new_table, print_whole
from tiltlab.report.evaluation import Evaluation
from tiltlab.report.findings import Findings
from tiltlab.report.forecast import fate, in_words, reason_of
from tiltlab.report.foretold import foretold
from tiltlab.report.lead import ranks_in_words
from tiltlab.report.load import Study
from tiltlab.report.outcome import called, tax_in_words
from tiltlab.report.parts import PARTS
from tiltlab.report.status_lines import clock
from tiltlab.report.tables import Row, at_k
from tiltlab.report.text import interval, number, signed
from tiltlab.stats.metrics import averages
from tiltlab.system.streams import line
from tiltlab.types import Record
from tiltlab.verdict.verdict import Verdict


def print_tables(study: Study, rows: Sequence[Row], findings: Mapping[str, Findings], console: Console) -> None:
    """Print a study: one table a task, with rows as on the page; then verdicts, alarms, and what failed.

    rows, findings: of `page.analysed`.
    """
    for task in study.tasks:
        print_whole(_table_of(study, task, [row for row in rows if row.task == task]), console)
    for row in (row for row in rows if row.which != "best"):
        for warning in row.warnings:
            console.print(line(f"{row.task} / {row.arm}: {warning}"), soft_wrap=True)
    for task in (task for task in study.tasks if findings[task].verdicts):
        console.print(line(("verdicts: ", "bold green"), f"{task}: {findings[task].in_words}"), soft_wrap=True)
    for task in study.tasks:
        if told := foretold(study, task, findings[task]):
            said = "; ".join(f"{one.arm} {fate(one.rise)}: {one.came}" for one in told)
            console.print(line(("foretold: ", "bold green"), f"{task}: {said}"), soft_wrap=True)
    for arm, kinds in _first_steps([one for task in study.tasks for one in fired_alarms(study, task)]).items():
        said = ", ".join(f"{kind} (step {step})" for kind, step in kinds.items())
        console.print(line(("alarms: ", "yellow"), f"{arm}: {said}"), soft_wrap=True)
    if ranks := ranks_in_words(study):
        console.print(line(ranks), soft_wrap=True)
    for job in study.failed:
        console.print(line(("Failed: ", "bold red"), str(job)), soft_wrap=True)


def print_sample(title: str, records: Sequence[Record], info: Mapping[str, Any], console: Console) -> None:
    """Print what one sampler's records come to, and what it says of itself.

    title: above the table.
    info: what drawing took (samplers.base.Info), as plain values.
    """
    table = new_table(title, ("accuracy", "length", "tokens used", "log p", "truncated", "seconds"))
    means = averages(records)
    tokens_used = (info["drawn"] + info["rescored"]) / len(records)
    figures = (means["accuracy"], means["length"], tokens_used, means["ref_logp"], means["truncated"], info["seconds"])
    table.add_row(*(number(value, digits) for value, digits in zip(figures, (3, 1, 1, 2, 3, 1), strict=True)))
    print_whole(table, console)
    for name, values in info["notes"].items():
        known = [value for value in values if isinstance(value, int | float) and isfinite(value)]
        if known:
            console.print(
                line(f"{name}: mean {mean(known):.3f}, least {min(known):.3f}, most {max(known):.3f} a prompt")
            )
    for warning in info["warnings"]:
        console.print(line(f"warning: {warning}", style="yellow"), soft_wrap=True)


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation: accuracy, pass@k and maj@k with intervals over problems."""
    table = new_table(
        f"{evaluation.name}: {evaluation.problems} problems, n = {evaluation.n}", ("value",), names=("figure",)
    )
    table.add_row("accuracy", interval(evaluation.accuracy))
    for name, curve in (("pass", evaluation.pass_k), ("maj", evaluation.maj_k)):
        for k, at in curve.items():
            if k > 1:
                table.add_row(f"{name}@{k}", interval(at))
    for reason, count in evaluation.reasons.items():
        table.add_row(reason.replace("_", " "), str(count))
    print_whole(table, console)


def print_forecast(forecast: Forecast, console: Console) -> None:
    """Print what a forecast comes to: in words; what a first step of each way would do; and what becomes of a run."""
    console.print(line(("forecast: ", "bold green"), in_words(forecast)), soft_wrap=True)
    if forecast.lines is None:
        return
    steps = forecast.lines.steps
    table = new_table(f"a first step, for {PRICE:g} nats", ("accuracy",), names=("towards",))
    for name, step in (("likelihood", steps.likelihood), ("votes", steps.answers), ("reward", steps.reward)):
        if step:
            table.add_row(name, signed(step.gain))
    print_whole(table, console)
    for rise in forecast.lines.rises:
        console.print(line((f"{rise.method}: ", "bold"), f"{fate(rise)} ({reason_of(rise)})"), soft_wrap=True)


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print a verdict: the outcome and why; the gain in its parts; and what more samples add."""
    console.print(line(("verdict: ", "bold"), (called(verdict), "bold green")), soft_wrap=True)
    needs = f" What it would take: {verdict.needs}." if verdict.needs else ""
    console.print(line(verdict.why + needs), soft_wrap=True)
    if verdict.made_of:
        console.print(line(verdict.made_of), soft_wrap=True)
    if verdict.parts:
        table = new_table("the gain in its parts", ("accuracy",), names=("part",))
        for part in PARTS:
            table.add_row(part.name, signed(part.interval(verdict.parts)))
        print_whole(table, console)
    if tax := tax_in_words(verdict):
        console.print(line(tax), soft_wrap=True)


def print_comparison(comparison: Compared, console: Console) -> None:
    """Print a comparison: one table a task; then what cannot be compared, and what differs between the recipes."""
    for task in dict.fromkeys(side.task for side in comparison.sides):
        figures = ("accuracy", f"against {comparison.runs[0]}", "length", "KL")
        table = new_table(task, figures, names=("arm", "run"))
        for side in (side for side in comparison.sides if side.task == task):
            row = side.row
            numbers = (
                interval(row.accuracy),
                signed(side.against),
                number(row.length.value, 1),
                number(row.kl.value, 2),
            )
            table.add_row(*map(line, (side.arm, side.run, *numbers)))
        print_whole(table, console)
    for note in comparison.notes:
        console.print(line(("note: ", "yellow"), note), soft_wrap=True)
    for key, values in comparison.differing.items():
        said = " | ".join("–" if value is None else str(value) for value in values)
        console.print(line((f"{key}: ", "bold"), said), soft_wrap=True)


def print_estimate(estimate: Any, console: Console) -> None:
    """Print what a study would do and take.

    estimate: a study.estimate.Estimate, which this module does not import, as it comes with models.
    """
    for task, splits in estimate.splits.items():
        sizes = ", ".join(f"{split} {of['problems']}" for split, of in splits.items())
        console.print(line((f"{task}: ", "bold"), sizes), soft_wrap=True)
        for note in (note for of in splits.values() for note in of["notes"]):
            console.print(line(f"    {note}"), soft_wrap=True)
    table = new_table(
        f"{estimate.name}: {len(estimate.jobs)} jobs", ("tokens at most",), names=("task", "arm", "seed", "")
    )
    for job in estimate.jobs:
        does = "trains" if job.trains else "samples"
        table.add_row(*map(line, (job.task, job.arm, str(job.seed), does, f"{job.tokens:,}")))
    print_whole(table, console)
    said = f"{estimate.tokens:,} tokens at most"
    if estimate.rate:
        said += (
            f"; at {estimate.rate:.0f} a second, as in the run folder so far, {clock(estimate.seconds)} in one process"
        )
    else:
        said += "; how long that takes is not known before the run folder holds a step or a sampler's draws"
    console.print(line(said), soft_wrap=True)


def print_check(name: str, checked: Any, console: Console) -> None:
    """Print what a check of a reward came to.

    name: of the task and the reward.
    checked: a reward_audit.Checked, which this module does not import, as it comes with models.
    """
    table = new_table(name, ("texts", "paid", "ungraded", ""), names=("probe",))
    for probe in checked.probes:
        mark = line("FAILS", style="bold red") if probe.failed else line("ok", style="green")
        table.add_row(line(probe.name), str(probe.texts), str(probe.paid), str(probe.unknown), mark)
    print_whole(table, console)
    console.print(line(f"{checked.milliseconds:.2f} ms a check; the slowest hostile text took {checked.slowest:.1f} s"))
    if checked.samples:
        s = checked.samples
        console.print(
            line(
                f"{s.problems} problems x {s.n} samples: accuracy {number(s.accuracy)}, reward {number(s.reward)}, "
                f"groups with signal {number(s.signal)}, ungraded {number(s.ungraded)}, answer entropy "
                f"{number(s.entropy, 2)} nats, correlation of reward and length {number(s.length, 2)}"
            )
        )
    for failure in checked.failures:
        console.print(line(("fails: ", "bold red"), failure), soft_wrap=True)
    if not checked.failures:
        console.print(line("passes", style="bold green"))


def _first_steps(alarms: Sequence[FiredAlarm]) -> dict[str, dict[str, int]]:
    """For each task and arm the kinds that fired in any seed, and the first step at which they did."""
    first: dict[str, dict[str, int]] = {}
    for one in alarms:
        steps = first.setdefault(f"{one.task} / {one.arm}", {})
        steps[one.alarm.kind] = min(one.alarm.step, steps.get(one.alarm.kind, one.alarm.step))
    return first


def _table_of(study: Study, task: str, rows: Sequence[Row]) -> Table:
    figures = ("accuracy", at_k(rows, "pass"), at_k(rows, "maj"), "length", "tokens used", "KL")
    table = new_table(f"{study.name}: {task}", figures, names=("arm", "step"))
    for row in rows:
        table.add_row(*map(line, _cells(row)))
    if not all(arm.knows_kl for arm in study.on(task)):
        table.caption = Text("KL –: log-probabilities are known at temperature 1 only\n", justify="left")
    return table


def _cells(row: Row) -> list[str]:
    accuracy = row.accuracy
    return [
        row.arm,
        " ".join([row.checkpoint, ",".join(map(str, sorted(set(row.steps))))]),
        f"{number(accuracy.value)} [{number(accuracy.low)} {number(accuracy.high)}]",
        number(row.pass_k.value),
        number(row.maj_k.value),
        number(row.length.value, 1),
        number(row.tokens_used, 1),
        number(row.kl.value, 2),
    ]


def print_lab(results: Mapping[str, Any], console: Console) -> None:
    """Print the lab's figures in short.

    results: of the lab, as plain values.
    """
    lengths, path, runs = results["two_lengths"], results["reward_path"], results["commitment"]
    mean = new_table("mean length: p^alpha beside temperature 1/alpha a token", ("alpha", "p^alpha", "temperature"))
    for alpha, power, colder in zip(lengths["alphas"], lengths["power"], lengths["temperature"], strict=True):
        mean.add_row(f"{alpha:g}", f"{power:.2f}", f"{colder:.2f}")
    reward = new_table("accuracy of the tilted optimum, binary reward", ("beta", "closed form", "summed", "trained"))
    columns = (path["betas"], path["formula"], path["enumerated"], path["trained"])
    for beta, formula, exact, trained in zip(*columns, strict=True):
        reward.add_row(f"{beta:g}", f"{formula:.4f}", f"{exact:.4f}", f"{trained:.4f}")
    seeds = len(runs["on_mode"][0])
    headers = ("batch", f"on a wrong response, of {seeds}", "tempered 4: distance to its optimum")
    commitment = new_table("pure sharpening: where it ends", headers)
    for batch, wrong, distances in zip(runs["batches"], results["wrong"], runs["tempered_distance"], strict=True):
        commitment.add_row(str(batch), str(wrong), f"{sum(distances) / seeds:.3f}")
    for table in (mean, reward, commitment):
        print_whole(table, console)
