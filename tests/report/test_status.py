"""`tiltlab status`: where each job is, by whatever it left in the run folder."""

import os
import socket
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.cli.test_cli import run
from tests.cli.test_output import told
from tests.config.test_recipe import SMALL, recipe
from tiltlab.config.recipe import load_recipe
from tiltlab.errors import Stopped, UserError
from tiltlab.report.evaluation_status import evaluation_status
from tiltlab.report.remaining import Course, remaining
from tiltlab.report.status import JobStatus, status_of
from tiltlab.report.status_lines import print_status
from tiltlab.storage.files import append_line, read_json, write_json
from tiltlab.storage.place import NAME, at_work, place_of
from tiltlab.storage.run_folder import JobDir
from tiltlab.study.job import Work
from tiltlab.study.run import run_job
from tiltlab.study.study import plan
from tiltlab.system.devices import own_number
from tiltlab.system.running import number_space

NO_PROCESS = 2**22 + 1
"""Linux gives no larger number than 2^22."""


def study(tmp_path: Path, *arms: Any, jobs: int | None = 1) -> tuple[Path, list[JobDir]]:
    """A study of arms that has begun, and the folders of its jobs, not one of which is there."""
    read = load_recipe(recipe(tmp_path, arms=list(arms), train=SMALL["train"] | {"steps": 40}))
    made: dict[str, Any] = {"command": [], "versions": {}, "python": "3", "machine": "m", "commit": None}
    names = [arm.name for arm in read.arms]
    about = {"recipe": read.model_dump(mode="json"), "arms": names, "seeds": 1, "made": [made | {"jobs": jobs}]}
    out = tmp_path / "run"
    write_json(out / "study.json", about | {"data": {"lazy-sum": {"test": {"problems": 2, "sha256": ""}}}})
    return out, [JobDir.of(out, "lazy-sum", name, 0) for name in names]


def trained(job: JobDir, steps: int, seconds: float = 3.0) -> None:
    job.path.mkdir(parents=True, exist_ok=True)
    for step in range(steps):
        append_line(job.metrics, {"step": step, "seconds": {"rollout": seconds - 1, "update": 1.0}})


def placed(job: JobDir, seconds: float = 0.0, **at: Any) -> None:
    """As a process leaves it that was killed."""
    here = {"host": socket.gethostname(), "process": os.getpid(), "space": number_space(), "devices": ["cpu"]}
    here |= {"ranks": 1, "since": time.time()}
    write_json(job.path / NAME, {"seconds": seconds, "at": here | at})


def unchanged(job: JobDir, seconds: float) -> None:
    for path in [*job.path.rglob("*"), job.path]:
        os.utime(path, (time.time() - seconds,) * 2)


def only(out: Path) -> JobStatus:
    (job,) = status_of(out).jobs
    return job


def lines(out: Path, width: int = 200) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    print_status(status_of(out), console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_job_that_runs_here_says_where(tmp_path: Path) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    with at_work(job.path, ["cuda:2", "cuda:3"], ranks=2):
        found = only(out)
        assert (found.state, found.step) == ("training", 20)
        assert found.left == pytest.approx(60)
        assert found.where is not None
        assert (found.where.host, found.where.process) == (socket.gethostname(), os.getpid())
        assert f"{socket.gethostname()}, cuda:2-3, 2 ranks, process {os.getpid()}, for 0:00:0" in lines(out)
        unchanged(job, 9000)  # its process can be asked: it is there
        assert not only(out).is_silent


def test_a_study_that_has_not_begun_a_job_waits(tmp_path: Path) -> None:
    out, _ = study(tmp_path, "base", "task_reward")
    assert {(job.state, job.where, job.changed) for job in status_of(out).jobs} == {("waiting", None, None)}
    assert "2 waiting; how long the rest takes is not known before steps are done" in lines(out)


def test_a_job_that_was_stopped_says_so_and_names_no_machine(tmp_path: Path) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    with pytest.raises(Stopped), at_work(job.path, ["cpu"]):
        raise Stopped("asked to")
    found = only(out)
    assert (found.state, found.where) == ("stopped", None)
    assert found.left == pytest.approx(60)
    assert socket.gethostname() not in (job.path / NAME).read_text()
    assert "nothing runs: the command that began it goes on" in lines(out)


@pytest.mark.parametrize("at", [{"process": NO_PROCESS}, {"since": time.time() - 10**8}], ids=["gone", "reused"])
def test_a_job_whose_process_is_gone_was_killed(tmp_path: Path, at: dict[str, Any]) -> None:
    """Also where another process has its number by now: this one began after the job did."""
    if "since" in at and sys.platform != "linux":
        pytest.skip("nobody says when a process began")
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    placed(job, **{"since": time.time() - 7800} | at)
    unchanged(job, 7200)
    found = only(out)
    assert found.state == "killed"
    assert found.changed == pytest.approx(7200, abs=60)
    assert "killed: " in lines(out)
    assert "since" in at or "for 0:1" in lines(out)  # until it was, about 10 minutes
    assert "2:00:0" in lines(out)


def test_a_process_that_was_killed_is_seen(tmp_path: Path) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    code = (
        "import sys, time; from pathlib import Path; from tiltlab.storage.place import at_work\n"
        "with at_work(Path(sys.argv[1]), ['cpu']): print('there', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(job.path)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        assert only(out).state == "training"
        worker.kill()
    assert only(out).state == "killed"


@pytest.mark.parametrize("elsewhere", [{"host": "node-3"}, {"space": "pid:[1]"}], ids=["machine", "container"])
def test_a_process_elsewhere_is_not_asked_for_but_said_to_be_silent(tmp_path: Path, elsewhere: dict[str, Any]) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    placed(job, process=NO_PROCESS, devices=["cuda:1"], **elsewhere)
    assert (only(out).state, only(out).is_silent) == ("training", False)
    unchanged(job, 7200)
    assert (only(out).state, only(out).is_silent) == ("training", True)
    assert "nothing was written for 2:00:0" in lines(out)
    assert "cannot be asked from here: it may have been killed" in lines(out)


def test_a_step_that_takes_long_is_no_silence(tmp_path: Path) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 2, seconds=4000)
    placed(job, host="node-3")
    unchanged(job, 7200)
    assert not only(out).is_silent
    unchanged(job, 40000)
    assert only(out).is_silent


def test_done_and_failed_are_so_whatever_a_killed_process_left(tmp_path: Path) -> None:
    out, (done, failed) = study(tmp_path, "base", "task_reward")
    for job in (done, failed):
        trained(job, 0)
        placed(job, process=NO_PROCESS)
    write_json(done.result, {"trained": False})
    write_json(failed.failed, {"error": "no gradient"})
    assert [(job.state, job.where) for job in status_of(out).jobs] == [("done", None), ("failed", None)]
    assert status_of(out).is_over
    assert "left" not in lines(out).splitlines()[-1]


def test_a_folder_of_an_older_version_is_told_as_it_was(tmp_path: Path) -> None:
    out, (done, training) = study(tmp_path, "sharpening", "task_reward", jobs=None)
    trained(done, 40)
    write_json(done.result, {"trained": True, "step": 40, "best_step": 40})
    trained(training, 20)
    first, second = status_of(out).jobs
    assert (first.state, second.state, second.where, second.is_silent) == ("done", "training", None, False)
    assert status_of(out).remaining.seconds == pytest.approx(60)  # by the clocks of the steps
    assert "not known" in lines(out)
    unchanged(training, 7200)
    assert "its folder does not say where it runs: it may have been killed" in lines(out)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"seconds": -1}',
        '{"seconds": 1, "at": {}}',
        '{"seconds": 1, "at": {"host": 3}}',
        "9" * 400,
        "\x00",
    ],
)
def test_a_damaged_place_is_one_line_and_stops_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    (job.path / NAME).write_text(text)
    assert run(monkeypatch, "status", str(out)) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert NAME in said
    assert "remove it: it says only where the job runs" in said
    with at_work(job.path, ["cpu"]):
        assert only(out).state == "training"


def test_tries_add_up_the_killed_one_until_its_last_change(tmp_path: Path) -> None:
    _, (job,) = study(tmp_path, "task_reward")
    trained(job, 1)
    placed(job, seconds=50.0, since=time.time() - 1000, process=NO_PROCESS)
    unchanged(job, 400)
    with at_work(job.path, ["cpu"]):
        pass
    place = place_of(job.path)
    assert place is not None
    assert place.seconds == pytest.approx(650, abs=30)


def test_a_job_says_where_it_runs_while_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = load_recipe(recipe(tmp_path), ["model.device=cuda:1"])
    job = plan(read, 1)[0]
    folder = job.folder(tmp_path / "run")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    seen = []

    def work(_: Work) -> None:
        place = place_of(folder.path)
        assert place is not None
        seen.append(place.at)
        raise ValueError("no")

    one = Work(job, read, folder, lambda *_: None, lambda: False)
    run_job(one, work)
    run_job(one, work, ["cuda:0", "cuda:1"])
    assert seen[0] is not None
    assert seen[1] is not None
    assert (seen[0].devices, seen[0].ranks) == (("cuda:6",), 1)
    assert (seen[1].devices, seen[1].ranks) == (("cuda:4", "cuda:6"), 2)
    assert folder.failed.exists()
    assert read_json(folder.path / NAME).keys() == {"seconds"}


def test_devices_are_named_as_the_machine_numbers_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [own_number(device) for device in ("cpu", "cuda:1", "mps")] == ["cpu", "cuda:1", "mps"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f, 3")
    assert [own_number(device) for device in ("cuda", "cuda:1", "cuda:2")] == ["cuda:GPU-8f", "cuda:3", "cuda:2"]


def course(arm: str, spent: float = 0, left: float | None = None, *, done: bool = False, task: str = "t") -> Course:
    return Course(task, arm, arm not in ("base", "beam"), done, spent, left)


@pytest.mark.parametrize(
    ("jobs", "at_a_time", "seconds", "unknown"),
    [
        ([], 1, 0, 0),
        ([course("base", 10, done=True)], 2, 0, 0),
        ([course("tilted", 60, 40), course("sharpening"), course("tempered")], 1, 40 + 100 + 100, 0),
        ([course("tilted", 60, 40), course("sharpening"), course("tempered")], 2, 40 + 100, 0),
        ([course("tilted", 120, done=True), course("sharpening", 50, 10)], 1, 70, 0),  # its tests come behind
        ([course("tilted", 120, done=True), course("sharpening", 150)], 1, 0, 0),
        ([course("base", 7, done=True), course("base", task="u"), course("beam")], 1, 7, 1),
        ([course("tilted", 90, done=True, task="u"), course("tilted", 80, done=True), course("tilted")], 1, 80, 0),
        ([course("base"), course("tilted")], 1, None, 2),
    ],
)
def test_what_is_left_is_counted_by_like_jobs(
    jobs: list[Course], at_a_time: int, seconds: float | None, unknown: int
) -> None:
    found = remaining(jobs, at_a_time)
    assert (found.seconds, found.unknown) == (seconds, unknown)


def test_a_study_counts_as_many_jobs_at_a_time_as_run(tmp_path: Path) -> None:
    out, jobs = study(tmp_path, "sharpening", "task_reward", {"arm": "tempered", "alpha": 4}, "greedy", jobs=1)
    for job, host in zip(jobs[:2], ("node-1", "node-2"), strict=True):
        trained(job, 20)
        placed(job, host=host, since=time.time() - 60)
    rest = status_of(out).remaining
    assert (rest.at_a_time, rest.unknown) == (2, 1)
    assert rest.seconds == pytest.approx(60 + 120, abs=10)
    assert "2 running, 2 waiting; about 0:0" in lines(out)
    assert "2 at a time, and 1 more of unknown length" in lines(out)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_all_of_it(tmp_path: Path, width: int) -> None:
    out, jobs = study(tmp_path, "base", {"arm": "tilted", "beta": 0.01, "alpha": 1.25})
    trained(jobs[1], 20)
    placed(jobs[1], host="node-3.cluster.example.org", devices=["cuda:0", "cuda:1"], ranks=2, process=812345)
    *tables, left = lines(out, width).splitlines()
    assert max(map(len, tables)) <= width
    assert left.startswith("1 running, 1 waiting")
    shown = "".join("".join(tables).split())
    for part in ("20of40", "training", "node-3.cluster.example.org,", "cuda:0-1,", "2ranks,", "812345,"):
        assert part in shown


def test_json_has_the_places_and_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)
    placed(job, host="node-3", devices=["cuda:0"])
    found = told(monkeypatch, capsys, "status", str(out))
    (one,) = found["jobs"]
    assert (one["where"]["host"], one["where"]["devices"], one["is_silent"]) == ("node-3", ["cuda:0"], False)
    assert found["remaining"]["seconds"] == pytest.approx(60, abs=5)


def test_a_folder_is_watched_until_all_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, (job,) = study(tmp_path, "task_reward")
    trained(job, 20)

    def sleep(_: float) -> None:
        if (job.path / NAME).exists():
            write_json(job.result, {"trained": True, "step": 40, "best_step": 40})
        placed(job)

    monkeypatch.setattr("tiltlab.cli.look.time.sleep", sleep)
    assert run(monkeypatch, "status", str(out), "--watch") == 0
    assert capsys.readouterr().out.count("small: last change") == 3


def test_an_evaluation_says_where_it_runs(tmp_path: Path) -> None:
    made: dict[str, Any] = {"command": [], "versions": {}, "python": "3", "machine": "m", "commit": None}
    write_json(tmp_path / "sample.json", {"recipe": {"n": 2, "task": {"task": "sum"}}, "made": made, "of": 20})
    assert evaluation_status(tmp_path).state == "begun"
    folder = JobDir(tmp_path)
    with at_work(tmp_path, ["cuda:0"]):
        found = evaluation_status(tmp_path)
        assert found.where is not None
        assert (found.state, found.where.devices) == ("begun", ("cuda:0",))
    assert evaluation_status(tmp_path).state == "stopped"
    placed(folder, process=NO_PROCESS)
    assert evaluation_status(tmp_path).state == "killed"
    placed(folder, host="node-3")
    unchanged(folder, 7200)
    assert evaluation_status(tmp_path).is_silent


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"), at_work(tmp_path / "file", ["cpu"]):
        pass
