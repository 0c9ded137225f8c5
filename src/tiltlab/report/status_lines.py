"""Where the jobs of a run are, for people: a row a job, then what there is to say of some, then what is left."""

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from tiltlab.report.console import new_table, print_whole
from tiltlab.report.evaluation_status import EvaluationStatus
from tiltlab.report.status import JobStatus, Status
from tiltlab.storage.place import Where
from tiltlab.system.streams import line

NONE = "–"


def print_status(status: Status, console: Console) -> None:
    """Print where a study is: a row a job; where those are that are under way; why some failed or may be gone, what
    fired; and what is left."""
    title = f"{status.name}: last change {clock(status.changed)} ago"
    table = new_table(title, ("state", "step", "steps/min", "left"), names=("task", "arm", "seed"))
    for job in status.jobs:
        table.add_row(*map(line, _cells(job)))
    print_whole(table, console)
    _print_places([job for job in status.jobs if job.runs or job.state in ("stopped", "killed")], console)
    for job in status.jobs:
        for alarm in job.alarms:
            console.print(line(("alarm: ", "yellow"), f"{_name(job)}: {alarm}"), soft_wrap=True)
        if job.why:
            console.print(line(("Failed: ", "bold red"), f"{_name(job)}: {job.why}"), soft_wrap=True)
        if job.is_silent:
            said = f"{_name(job)}: {_silent(job.where, job.changed or 0.0)}"
            console.print(line(("silent: ", "yellow"), said), soft_wrap=True)
    console.print(line(_left(status)), soft_wrap=True)


def _print_places(jobs: Sequence[JobStatus], console: Console) -> None:
    if not jobs:
        return
    table = new_table("under way", ("last change",), names=("job", "where"))
    for job in jobs:
        changed = NONE if job.changed is None else f"{clock(job.changed)} ago"
        table.add_row(*map(line, (_name(job), _place(job), changed)))
    print_whole(table, console)


def _name(job: JobStatus) -> str:
    return f"{job.task} / {job.arm} / seed {job.seed}"


def print_evaluation_status(status: EvaluationStatus, console: Console) -> None:
    """Print where an evaluation is, in one line, and another where it may be gone."""
    name = " / ".join(part for part in (status.task, status.sampler) if part)
    of = "" if status.of is None else f" of {status.of}"
    said = f"{status.state}, {status.problems}{of} problems, {status.responses} responses"
    left = "" if status.left is None else f", about {clock(status.left)} left"
    ago = status.changed if status.state == "killed" else 0.0
    where = f"; {_where(status.where, ago)}" if status.where else ""
    changed = f"; last change {clock(status.changed)} ago"
    console.print(line((f"{name}: " if name else "", "bold"), said + left + where + changed), soft_wrap=True)
    if status.is_silent:
        console.print(line(("silent: ", "yellow"), _silent(status.where, status.changed)), soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds, however many hours."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _cells(job: JobStatus) -> list[str]:
    return [
        job.task,
        job.arm,
        str(job.seed),
        job.state,
        NONE if job.step is None else f"{job.step} of {job.of}",
        NONE if job.rate is None else f"{60 * job.rate:.3g}",
        NONE if job.left is None else clock(job.left),
    ]


def _place(job: JobStatus) -> str:
    if job.where is None:
        return job.state if job.state == "stopped" else "not known"
    if job.state == "killed":
        return f"killed: {_where(job.where, job.changed or 0.0)}"
    return _where(job.where)


def _where(where: Where, ago: float = 0.0) -> str:
    """Where something runs and for how long it has; or, where it was killed so many seconds ago, had."""
    ranks = f", {where.ranks} ranks" if where.ranks > 1 else ""
    lasted = clock(max(0.0, time.time() - ago - where.since))
    return f"{where.host}, {_devices(where.devices)}{ranks}, process {where.process}, for {lasted}"


def _devices(names: Sequence[str]) -> str:
    """Devices by name; several GPUs in a row as cuda:0-3."""
    kind, _, first = names[0].partition(":")
    if first.isdecimal() and list(names) == [f"{kind}:{int(first) + i}" for i in range(len(names))]:
        return names[0] + (f"-{int(first) + len(names) - 1}" if len(names) > 1 else "")
    return " ".join(names)


def _silent(where: Where | None, changed: float) -> str:
    asked = f"{where.host} cannot be asked from here" if where else "its folder does not say where it runs"
    return f"nothing was written for {clock(changed)}, and {asked}: it may have been killed"


ORDER = ("done", "running", "waiting", "stopped", "killed", "failed")


def _left(status: Status) -> str:
    """How many jobs are in which state, and how long the rest takes."""
    counts = Counter("running" if job.runs else job.state for job in status.jobs)
    said, rest = [", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])], status.remaining
    if rest.seconds is None:
        said.append("how long the rest takes is not known before steps are done")
    elif not status.is_over:
        unknown = f", and {rest.unknown} more of unknown length" if rest.unknown else ""
        said.append(f"about {clock(rest.seconds)} left, {rest.at_a_time} at a time{unknown}")
    if not counts["running"] and counts["stopped"] + counts["killed"]:
        said.append("nothing runs: the command that began it goes on")
    return "; ".join(said)
