"""A study: every arm on every task with every seed, by one procedure, in one run folder.

Same prompts in the same order, same budget, same evaluation: all of it follows from the recipe and the seed alone.
The report is made from the run folder and is not this module's business.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tiltlab.config.memory_keys import without_memory_keys
from tiltlab.config.recipe import Recipe, with_defaults
from tiltlab.config.votable import require_votable
from tiltlab.engines.make import require_engine
from tiltlab.errors import UserError, gathered
from tiltlab.models.chat import today
from tiltlab.models.loading import load_codec, load_reference, policy_from
from tiltlab.plan.cards import this_machine
from tiltlab.plan.plan import require_room
from tiltlab.storage import shapes
from tiltlab.storage.files import write_json, write_text
from tiltlab.storage.folder import alone_in, require_writable
from tiltlab.storage.old_names import renamed_study
from tiltlab.storage.run_folder import JobDir, kept_date
from tiltlab.storage.shaped import or_else, read_shaped
from tiltlab.study.job import Job
from tiltlab.study.pieces import Launch, begin, piece, placed, workers_gone
from tiltlab.study.resume import require_whole
from tiltlab.study.run import load_base
from tiltlab.system import process_pool
from tiltlab.system.devices import places_for, settle
from tiltlab.system.process_pool import Pool
from tiltlab.system.provenance import provenance
from tiltlab.system.ranks import run_on_ranks
from tiltlab.tasks.apart import Apart
from tiltlab.tasks.base import Task, notes_of, try_on_gold
from tiltlab.types import Problem, Prompt, Split

OnProgress = Callable[..., None]
"""Told (job, what it is doing, how much is done, out of how much), and a line to keep where there is news; total 0
means that the job is finished."""


def plan(recipe: Recipe, seeds: int) -> list[Job]:
    """All jobs of a study. The arms that train come first in each task: they take longest.

    seeds: how many, from the recipe's first.
    """
    arms = sorted(recipe.arms, key=lambda arm: arm.objective() is None)
    numbers = range(recipe.seed, recipe.seed + seeds)
    return [Job(task, arm, seed) for seed in numbers for task in taught(recipe) for arm in arms]


def taught(recipe: Recipe) -> list[Task]:
    """The recipe's tasks, none of which learns from what it is tested on."""
    tasks: list[Task] = []
    for task in recipe.tasks:
        others = tuple(test.task for test in recipe.tests_of(task.name) if not test.is_own)
        tasks.append(Apart(task, others) if others else task)
    return tasks


def run_study(
    recipe: Recipe,
    run: Path,
    *,
    seeds: int,
    jobs: int,
    devices: Sequence[str],
    on_progress: OnProgress,
    on_note: Callable[[str], None] = lambda _: None,
    launch: Launch | None = None,
    pool: Pool = process_pool,
) -> list[Job]:
    """Run a study, or go on with one that was stopped or killed; what is done is not done again.

    run: the run folder, made where there is none.
    seeds: how many, from the recipe's first.
    jobs: how many run side by side; they share the CPU's cores out between them.
    devices: that the jobs take turns on, as torch names them.
    on_progress: told where each job is.
    on_note: told what there is to say of the model, a line at a time.
    launch: has ranks do a job that is to have several; left out, ranks are started for each.
    pool: where the jobs run, this machine where left out.

    Returns the jobs that could not be finished; each says why in its failed.json.

    Raises UserError, before anything is written, for a recipe that cannot work and for a folder that holds another
    study; Stopped after Ctrl-C, once everything is saved.
    """
    places = places_for(recipe.gpus, devices)
    require_writable(run / "study.json")
    date = recipe.model.date or kept_date(run / "study.json") or today()
    asked, recipe = recipe, recipe.model_copy(update={"model": replace(recipe.model, date=date)})
    new, keep = not (run / "study.json").exists(), jobs == recipe.gpus == 1
    tried = partial(_try, placed(recipe, devices[0]), pool.sharing(jobs, places), new, keep)
    facts = _looked_over(recipe, partial(pool.ask, tried), on_note)
    with alone_in(run):
        lock = workers_gone(run)
        threads = pool.threads(jobs * recipe.gpus)
        made = provenance() | {"jobs": jobs, "ranks": recipe.gpus, "threads": threads, "devices": list(devices)}
        _open(asked, run, seeds, facts, made, date)
        unfinished = [job for job in plan(recipe, seeds) if not _is_done(job.folder(run), recipe)]
        launch = launch or partial(run_on_ranks, begin=partial(settle, threads))
        whole = run.absolute()  # wherever the processes that get it are
        pool.run_all(
            [partial(piece, job, recipe, whole, lock.absolute(), launch) for job in unfinished],
            jobs=max(1, min(jobs, len(unfinished))),
            begin=partial(begin, threads),
            devices=places,
            on_progress=lambda i, *news: on_progress(unfinished[i], *news),
        )
        return [job for job in unfinished if job.folder(run).failed.exists()]


def _looked_over(recipe: Recipe, tried: Callable[[], str | None], on_note: Callable[[str], None]) -> dict[str, Any]:
    """What `check` returns. All notes are told in the end, where nothing is wrong.

    tried: called once that is so; `_try`.
    """
    notes: list[str] = []
    facts = check(recipe, notes.append)
    if said := tried():
        notes.append(said)
    for note in notes:
        on_note(note)
    return facts


def _is_done(folder: JobDir, recipe: Recipe) -> bool:
    """Raises UserError for a job that is done and has lost lines of its curves since."""
    if not folder.result.exists():
        return False
    require_whole(folder, recipe.validation.every)
    return True


def _try(recipe: Recipe, sharing: int, new: bool, keep: bool) -> str | None:
    """Whether this machine has room for it, as `require_room` tells; of a new study, whether its model can be used."""
    said = require_room(recipe, this_machine(recipe.model.device), sharing)
    if new:
        _try_model(recipe, keep=keep)
    return said


def _try_model(recipe: Recipe, *, keep: bool) -> None:
    """Load the model and try the adapters on it: what is wrong with either shows before anything is written, and not in
    some worker. Done once a study. `keep`: this process will need the model."""
    base = load_base(recipe.model) if keep else load_reference(recipe.model, load_codec(recipe.model))
    if recipe.model.lora:
        with policy_from(base, recipe.model, seed=0):
            pass


def check(recipe: Recipe, on_note: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Look for everything that can be known to be wrong without loading weights.

    on_note: told what there is to say of the model, a line at a time.

    Returns by task and split the number and hash of its problems, and what the task notes of how it was made.

    Raises UserError, with a line for each, for a model, an engine, a task, a prompt or a reward that cannot be used.
    """
    wrong: list[str] = []
    codec, reward = None, None
    with gathered(wrong):
        codec = load_codec(recipe.model)
    with gathered(wrong):
        require_engine(recipe.engine, samplers=[arm.sampler() for arm in recipe.arms])
    with gathered(wrong):
        reward = recipe.train.own_reward()
    with gathered(wrong):
        recipe.train.optimizer.require_installed()
    facts: dict[str, Any] = {}
    rendered: list[Prompt] = []
    for number, task in enumerate(taught(recipe)):
        with gathered(wrong, f"tasks.{number}"):
            facts[task.name] = {}
            needed = splits_of(recipe, task)
            for of in needed:
                problems = _some_problems(of.task, of.split)
                prompts = [of.task.render(problem) for problem in problems]
                if of.split == "test":
                    require_votable(of.task, problems, recipe.arms)
                for prompt in prompts if codec else ():
                    codec.encode(prompt, of.max_tokens)
                rendered.append(prompts[0])
                facts[task.name][of.name] = _fact(of.task, of.split, problems)
            if reward:
                try_on_gold(reward, needed[0].task, needed[0].split)
    if wrong or not codec:
        raise UserError(*wrong)
    for note in codec.notes(rendered):
        on_note(note)
    return facts


def _some_problems(task: Task, split: Split) -> Sequence[Problem]:
    problems = task.problems(split)
    if not problems:
        raise UserError(f"task {task.name} has no problem in its {split} split")
    return problems


class Needed(NamedTuple):
    """A split that a study needs.

    name: what study.json calls it: train, validation, test, or the name of another test set behind "test ".
    task: whose split it is.
    split: which of the task's.
    max_tokens: of a response to its problems.
    """

    name: str
    task: Task
    split: Split
    max_tokens: int


def splits_of(recipe: Recipe, task: Task) -> list[Needed]:
    """The splits that a study of a task needs: where no arm trains, test sets alone.

    task: as `taught` has it.
    """
    limit = recipe.train.max_tokens
    learning = [
        Needed("train", task, "train", limit),
        Needed("validation", task, "validation", recipe.validation.max_tokens or limit),
    ]
    tests = [
        Needed("test" if test.is_own else f"test {test.name}", test.task, "test", test.max_tokens)
        for test in recipe.tests_of(task.name)
    ]
    return [*(learning if any(arm.objective() for arm in recipe.arms) else ()), *tests]


def _fact(task: Task, split: Split, problems: Sequence[Problem]) -> dict[str, Any]:
    text = json.dumps([[p.id, task.render(p), p.answer] for p in problems], sort_keys=True)
    fact = {"problems": len(problems), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    notes = notes_of(task, split)
    return fact | ({"notes": notes} if notes else {})


def _open(recipe: Recipe, run: Path, seeds: int, facts: dict[str, Any], made: dict[str, object], date: dt.date) -> None:
    """Write study.json, or make sure that the one there is of the same study."""
    path = run / "study.json"
    wanted = recipe.model_dump(mode="json")
    if path.exists():
        with or_else("put a copy of it back, or choose another --out"):
            before = renamed_study(read_shaped(path, shapes.Study))
        kept = without_memory_keys(with_defaults(Recipe, before["recipe"]))
        differing = _differences(kept, without_memory_keys(wanted)) or _differences(
            _problems_of(before["data"]), _problems_of(facts)
        )
        if differing:
            raise UserError(
                f"{run} holds another study: {differing} differs; go on with the recipe it was made by, "
                "or choose another --out"
            )
        seeds = max(seeds, before["seeds"])
        history = before["made"]
    else:
        history = []
    if not history or history[-1] != made:
        history = [*history, made]
    names = [arm.name for arm in recipe.arms]
    tests = {task.name: recipe.tests_of(task.name) for task in recipe.tasks}
    sets = {test.name: test for of in tests.values() for test in of}
    shown = [
        {"task": name, "id": problem.id, "question": problem.question, "answer": problem.answer}
        for name, test in sets.items()
        for problem in test.task.problems("test")[: test.problems]
    ]
    write_text(run / "problems.jsonl", "".join(json.dumps(problem) + "\n" for problem in shown))
    natures = [arm.nature for arm in recipe.arms]
    about = {
        "recipe": wanted,
        "arms": names,
        "natures": natures,
        "seeds": seeds,
        "data": facts,
        "tests": {
            task: [{"name": t.name, "own": t.is_own, "n": t.n, "max_tokens": t.max_tokens} for t in of]
            for task, of in tests.items()
        },
        "made": history,
        "date": str(date),
    }
    write_json(path, about)


def _problems_of(data: dict[str, Any]) -> dict[str, Any]:
    """What study.json says of the problems but for the notes on them, whose words may be an earlier version's."""
    return {task: {split: fact | {"notes": None} for split, fact in splits.items()} for task, splits in data.items()}


def _differences(before: Any, wanted: Any, where: str = "") -> str | None:
    """The first key in which two trees of plain values differ, or None."""
    if isinstance(before, dict) and isinstance(wanted, dict):
        for key in sorted({*before, *wanted}):
            inner = _differences(before.get(key), wanted.get(key), f"{where}.{key}" if where else key)
            if inner:
                return inner
        return None
    return None if before == wanted else where
