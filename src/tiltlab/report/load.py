"""A run folder as plain values. What is missing (a study still running) is simply not there; what failed is told."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiltlab.errors import UserError
from tiltlab.storage import shapes
from tiltlab.storage.files import Json, require_end
from tiltlab.storage.natures import Nature, nature_of
from tiltlab.storage.old_names import renamed_study
from tiltlab.storage.records import read_records
from tiltlab.storage.run_folder import JobDir
from tiltlab.storage.shaped import or_else, read_shaped, read_shaped_lines, read_steps
from tiltlab.types import Record


@dataclass(frozen=True)
class Seeded:
    """One arm on one task with one seed.

    seed: of the job.
    last: records of the last checkpoint.
    best: records of the best one, the same as `last` where that is the best.
    steps: which steps "last" and "best" are of; None for an arm that is not trained.
    metrics: lines of metrics.jsonl; none beside a second test set, as a training has one course (`TestSet.leads`).
    validation: likewise of select.jsonl.
    sampling: of the last checkpoint: tokens drawn and rescored, seconds, responses, notes and warnings.
    sampling_best: likewise of the best one.
    tokens: of the last checkpoint: the first response to some problems, token by token (token_logprobs.TokenLine).
    more: further responses of the base, for the forecast; of no other arm.
    stopped: the alarm that ended its training before the last step of the recipe.
    """

    seed: int
    last: list[Record]
    best: list[Record]
    steps: dict[str, int] | None
    metrics: list[Json]
    validation: list[Json]
    sampling: Json
    sampling_best: Json
    tokens: list[Json]
    more: list[Record]
    stopped: str | None


@dataclass(frozen=True)
class TestSet:
    """One test set of a training.

    label: what it is called beside all others of the study: as the task is that was trained on, or "SET, from TASK".
    task: that was trained on.
    name: of the set.
    n: samples of a problem.
    max_tokens: of a response; None where nobody wrote it down.
    sha256: of its problems.
    leads: whether the training itself is told of beside it; the task's own test split where there is that, else the
        first set.
    """

    label: str
    task: str
    name: str
    n: int
    max_tokens: int | None
    sha256: str
    leads: bool

    def folder(self, job: JobDir) -> JobDir:
        """Where a job's records of it are."""
        return job if self.label == self.task else job.test(self.name)


@dataclass(frozen=True)
class ArmOnTask:
    """All seeds of one arm on one task.

    task: the label of its test set (`TestSet`).
    name: of the arm.
    config: the arm, as the recipe has it.
    nature: what the arm says that it is.
    seeds: those that are done.
    """

    task: str
    name: str
    config: Json
    nature: Nature
    seeds: list[Seeded]

    @property
    def trained(self) -> bool:
        """Whether the arm trains."""
        return self.nature == "trained"

    @property
    def own_distribution(self) -> bool:
        """Whether its samples are of its model's own distribution, temperature 1.

        Records know log-probabilities at temperature 1 only, so of any other distribution they cannot say how far it is
        from the base.
        """
        return self.nature in ("base", "plain", "trained")

    @property
    def knows_kl(self) -> bool:
        """Whether its samples say how far it is from the base.

        Those of its model's own distribution do, and those of PowerSMC, which estimates the Z of its distribution.
        """
        return self.own_distribution or self.config["arm"] == "power_smc"


@dataclass(frozen=True)
class Failure:
    """A job that could not be finished, and its curves up to there.

    task: the label of the test set that the training is told of beside.
    arm: by name.
    config: the arm, as the recipe has it.
    seed: of the job.
    error: why, as one line.
    metrics: lines of metrics.jsonl.
    validation: lines of select.jsonl.
    """

    task: str
    arm: str
    config: Json
    seed: int
    error: str
    metrics: list[Json]
    validation: list[Json]

    def __str__(self) -> str:
        return f"{self.task} / {self.arm} / seed {self.seed}: {self.error}"


@dataclass(frozen=True)
class Study:
    """A study, as far as it is done.

    name: of the study.
    recipe: as plain values.
    made: how, once for each time that it was begun or went on (tiltlab.system.provenance).
    data: number and hash of the problems, by task and split.
    tests: the test sets, by label. With several of them, each is a task in what follows.
    seeds: how many.
    arms: for each task its arms, in the recipe's order.
    problems: question and gold answer by (name of the test set, problem id).
    missing: jobs that are not done yet.
    failed: jobs that could not be finished.
    """

    name: str
    recipe: Json
    made: list[Json]
    data: Json
    tests: dict[str, TestSet]
    seeds: int
    arms: list[ArmOnTask]
    problems: dict[tuple[str, str], Json]
    missing: int
    failed: list[Failure]

    @property
    def tasks(self) -> list[str]:
        """Tasks of which there is anything, by name, in the recipe's order."""
        return list(dict.fromkeys(arm.task for arm in self.arms))

    @property
    def configs(self) -> dict[str, Json]:
        """Each arm of which there is anything, by name, as the recipe has it and in its order."""
        configs = {arm.name: arm.config for arm in self.arms} | {job.arm: job.config for job in self.failed}
        return dict(sorted(configs.items(), key=lambda arm: self.recipe["arms"].index(arm[1])))

    def on(self, task: str) -> list[ArmOnTask]:
        """The arms of a task, in the recipe's order."""
        return [arm for arm in self.arms if arm.task == task]

    def base(self, task: str) -> ArmOnTask | None:
        """The untouched model at temperature 1, which everything is compared with; None without one."""
        return next((arm for arm in self.on(task) if arm.nature == "base"), None)

    @property
    def keeps_truncated(self) -> bool:
        """Whether truncated responses were trained on, as responses like any other."""
        return bool(self.recipe["train"].get("truncated") == "keep")


def load_study(run: Path) -> Study:
    """Read a run folder. Raises UserError where it holds no study, or no finished job, or a damaged file."""
    about = about_study(run)
    recipe, seeds = about["recipe"], range(about["recipe"]["seed"], about["recipe"]["seed"] + about["seeds"])
    natures = about.get("natures") or [nature_of(config) for config in recipe["arms"]]
    arms: list[ArmOnTask] = []
    failed: list[Failure] = []
    missing = 0
    tests = {test.label: test for test in _tests(about)}
    for test in tests.values():
        for config, name, nature in zip(recipe["arms"], about["arms"], natures, strict=True):
            jobs = {seed: JobDir.of(run, test.task, name, seed) for seed in seeds}
            done = {seed: job for seed, job in jobs.items() if job.result.exists()}
            broken = {seed: job for seed, job in jobs.items() if seed not in done and job.failed.exists()}
            if test.leads:
                missing += len(jobs) - len(done) - len(broken)
                failed += [_failure(job, test.label, name, config, seed) for seed, job in broken.items()]
            if done:
                seeded = [_seeded(job, test, config, nature, seed) for seed, job in done.items()]
                arms.append(ArmOnTask(test.label, name, config, nature, seeded))
    if not arms:
        why = f"; failed: {failed[0]}" if failed else " yet"
        raise UserError(f"{run} holds no finished job{why}")
    problems = _problems(run / "problems.jsonl")
    made, data = about["made"], about["data"]
    return Study(recipe["name"], recipe, made, data, tests, about["seeds"], arms, problems, missing, failed)


def _tests(about: Json) -> Iterator[TestSet]:
    """The test sets of a study, task by task."""
    recipe = about["recipe"]
    plain = {"own": True, "n": recipe["test"]["n"], "max_tokens": recipe["train"].get("max_tokens")}
    for task, splits in about["data"].items():
        sets = (about.get("tests") or {}).get(task) or [plain | {"name": task}]
        leading = next((one for one in sets if one["own"]), sets[0])
        for one in sets:
            fact = splits.get("test" if one["own"] else f"test {one['name']}", {})
            yield TestSet(
                label=task if one["own"] else f"{one['name']}, from {task}",
                task=task,
                name=one["name"],
                n=one["n"],
                max_tokens=one["max_tokens"],
                sha256=fact.get("sha256", ""),
                leads=one is leading,
            )


def about_study(run: Path) -> Json:
    """study.json. Raises UserError where there is none, or one of something else."""
    path = run / "study.json"
    if not run.is_dir():
        raise UserError(f"{run} is a file, not a run folder" if run.exists() else f"{run} does not exist")
    if not path.exists():
        raise UserError(f"{run} holds no study: there is no study.json in it")
    with or_else(f"so {run} holds no study, or its study.json is not one of tiltlab's; put a copy of it back"):
        return renamed_study(read_shaped(path, shapes.Study))


def _problems(path: Path) -> dict[tuple[str, str], Json]:
    with or_else("the study's command writes it again"):
        if not path.is_file():
            raise UserError(f"{path} is missing")
        return {(line["task"], line["id"]): line for line in read_shaped_lines(path, shapes.Shown)}


def _seeded(job: JobDir, test: TestSet, config: Json, nature: Nature, seed: int) -> Seeded:
    with or_else(f"remove {job.path}, and the study's command makes it again"):
        return _read(job, test, config, nature, seed)


def _read(job: JobDir, test: TestSet, config: Json, nature: Nature, seed: int) -> Seeded:
    result, folder = read_shaped(job.result, shapes.Result), test.folder(job)
    trained = nature == "trained"
    if result["trained"] != trained:
        raise UserError(f"{job.result}: trained cannot be {result['trained']} for arm {config['arm']}")
    steps = {"last": result["step"], "best": result["best_step"]} if trained else None
    sampling = read_shaped(folder.sampling("last"), shapes.Sampling)
    last = _records(folder, "last", sampling["responses"])
    _require_log_z(folder.sampling("last"), config, sampling, last)
    of_best = folder.sampling("best")
    sampling_best = read_shaped(of_best, shapes.Sampling) if of_best.exists() else sampling
    has_best = folder.records("best").exists() or (steps and steps["best"] != steps["last"])
    best = _records(folder, "best", sampling_best["responses"]) if has_best else last
    more = _records(folder, "forecast") if folder.records("forecast").exists() else []
    tokens = read_shaped_lines(folder.tokens("last"), shapes.TokenLine)
    metrics, validation = _curves(job, result["step"] if trained else 0) if test.leads else ([], [])
    return Seeded(
        seed, last, best, steps, metrics, validation, sampling, sampling_best, tokens, more, result.get("stopped")
    )


def _records(folder: JobDir, which: str, count: int | None = None) -> list[Record]:
    """Graded responses. `count`: how many there must be, where that is known."""
    path = folder.records(which)
    require_end(path)
    records = read_records(path)
    if not records:
        raise UserError(f"{path} holds no record" if path.exists() else f"{path} is missing")
    if count is not None and len(records) != count:
        raise UserError(f"{path} holds {len(records)} records of {count}")
    return records


def _require_log_z(path: Path, config: Json, sampling: Json, records: list[Record]) -> None:
    """Raises UserError where a sampler that estimates Z has left no Z for each problem."""
    problems = len({record.problem for record in records})
    if config["arm"] == "power_smc" and len(sampling["notes"].get("log_z", ())) != problems:
        raise UserError(f"{path}: notes.log_z needs a number for each of {problems} problems")


def _curves(folder: JobDir, steps: int) -> tuple[list[Json], list[Json]]:
    """Metrics and evaluations of a job that is done, after so many steps."""
    metrics, validation = read_steps(folder.metrics, shapes.Step), read_steps(folder.validation, shapes.Validated)
    for path, lines, last in ((folder.metrics, metrics, steps - 1), (folder.validation, validation, 0)):
        if steps and not (lines and lines[-1]["step"] >= last):
            raise UserError(f"{path} ends too early: result.json tells of {steps} steps")
    return metrics, validation


def _failure(folder: JobDir, task: str, arm: str, config: Json, seed: int) -> Failure:
    with or_else(f"remove {folder.path}, and the study's command makes it again"):
        error = " ".join(read_shaped(folder.failed, shapes.Failed)["error"].split())
        metrics = read_steps(folder.metrics, shapes.Step, ended=False)
        validation = read_steps(folder.validation, shapes.Validated, ended=False)
    return Failure(task, arm, config, seed, error, metrics, validation)
