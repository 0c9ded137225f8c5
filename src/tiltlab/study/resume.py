"""A training on the disk: saved now and then, and gone on with from its newest checkpoint that is whole.

A checkpoint is whole if its state, its weights, its optimiser and the best checkpoint that it names can be read, and if
metrics.jsonl and select.jsonl hold every line that its state counts. Left out on purpose: when to save (run.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tiltlab.errors import UserError
from tiltlab.models.base import Policy
from tiltlab.storage.checkpoints import Checkpoints
from tiltlab.storage.files import Json, read_json, whole_lines, write_json, write_lines
from tiltlab.storage.run_folder import JobDir
from tiltlab.system.world import ALONE, World
from tiltlab.training.alarms import Watch, watched
from tiltlab.training.optimizer import Optimizer


@dataclass(frozen=True)
class State:
    """Where a training is.

    step: steps done.
    evaluated: the step after which it was evaluated last.
    best_step: after which it was best; 0 before the first evaluation.
    best_accuracy: on the validation split then; -1 before the first.
    """

    step: int = 0
    evaluated: int = 0
    best_step: int = 0
    best_accuracy: float = -1.0


@dataclass(frozen=True)
class Resumed:
    """Where to go on.

    state: of the checkpoint that was read, or of no step at all.
    watch: it has seen what an earlier try left, and fires the same as if there had been no stop.
    wrong: what is wrong with the newest checkpoint, where that was not whole.
    """

    state: State
    watch: Watch
    wrong: UserError | None = None


Ended = Callable[[State, Watch], bool]
"""Whether a training with this state, and with a watch that has seen its lines, takes no further step."""


def save(folder: JobDir, policy: Policy, optimizer: Optimizer, state: State, world: World = ALONE) -> None:
    """Keep where a training is, and its best checkpoint; older ones are removed.

    folder: of the job.
    policy, optimizer: as they are after `state.step` steps.
    world: of the ranks that train, all of which call this: each has a part of the optimizer's state.

    Raises UserError where it cannot be written.
    """
    checkpoints = folder.checkpoints
    if world.done_by_first(checkpoints.step(state.step).is_dir):  # it was evaluated since: the weights are the same
        if world.is_first:
            write_json(checkpoints.state(state.step), asdict(state))
    else:
        with _new(checkpoints, state.step, policy.nbytes + optimizer.nbytes, world) as part:
            if world.is_first:
                policy.save(part)
                write_json(part / checkpoints.state(state.step).name, asdict(state))
            optimizer.save(part / checkpoints.optimizer(state.step).name)
    if world.is_first:
        checkpoints.keep({state.best_step, state.step})


@contextmanager
def _new(checkpoints: Checkpoints, step: int, bytes_needed: int, world: World) -> Iterator[Path]:
    """`checkpoints.new`, for all ranks to fill: rank 0 makes the folder, and completes it once all are done."""
    with checkpoints.new(step, bytes_needed) if world.is_first else nullcontext(checkpoints.unfinished(step)) as part:
        world.wait()
        yield part
        world.wait()


def resume(
    folder: JobDir, policy: Policy, optimizer: Optimizer, every: int, ended: Ended, world: World = ALONE
) -> Resumed:
    """Where to go on, with weights, optimiser and lines as they were then. What came after is dropped: it will be made
    again.

    folder: of the job.
    policy, optimizer: as made for a new training; they get what the checkpoint holds.
    every: steps between two evaluations.
    ended: whether the training takes no further step, so that its optimiser is not needed.
    world: of the ranks that train, all of which call this. Rank 0 alone reads the lines, and drops what came after.

    Raises UserError where there are checkpoints, and none is whole.
    """
    checkpoints, wrong = folder.checkpoints, None
    for step in world.done_by_first(lambda: list(reversed(checkpoints.steps()))):
        try:
            kept = world.done_by_first(partial(_counted_by, folder, step, every))
            watch = _restored(folder, policy, optimizer, kept, ended, world)
        except UserError as error:
            wrong = wrong or error
            continue
        if world.is_first:
            _go_on_from(folder, kept, wrong)
        world.wait()
        return Resumed(kept.state, watch, wrong)
    if wrong:
        raise _beyond_repair(folder, wrong)
    return Resumed(State(), world.done_by_first(partial(_begin, folder)))


def require_whole(folder: JobDir, every: int) -> None:
    """Check a job that is done.

    every: steps between two evaluations.

    Raises UserError where it trained and lacks lines that its result counts.
    """
    try:
        result = read_json(folder.result)
        if result["trained"]:
            _counted(folder, result["step"], result["evaluated"], every)
    except (UserError, KeyError, TypeError) as error:
        raise _beyond_repair(folder, error) from error


def _beyond_repair(folder: JobDir, error: Exception) -> UserError:
    said = error if isinstance(error, UserError) else f"{folder.result} is damaged: {error!r}"
    return UserError(f"{said}; remove {folder.path}, and the same command makes it anew")


@dataclass(frozen=True)
class _Kept:
    """The state of a checkpoint, and the lines of metrics.jsonl and select.jsonl that it counts."""

    state: State
    metrics: list[Json]
    validation: list[Json]


def _counted_by(folder: JobDir, step: int, every: int) -> _Kept:
    """Raises UserError where any of it is missing or damaged."""
    state = _state(folder.checkpoints.state(step), step)
    return _Kept(state, *_counted(folder, step, state.evaluated, every))


def _restored(folder: JobDir, policy: Policy, optimizer: Optimizer, kept: _Kept, ended: Ended, world: World) -> Watch:
    """A watch that has seen the lines of a checkpoint, which is put on the policy and the optimiser. Raises UserError,
    on every rank, for one that is not whole."""
    checkpoints, state = folder.checkpoints, kept.state
    for needed in sorted({state.best_step, state.step} - {0}):  # the best, too: it is wanted at the end
        policy.restore(checkpoints.step(needed), needed)
    try:
        watch = watched(kept.metrics, kept.validation)
        over = ended(state, watch)
    except (KeyError, TypeError) as error:
        raise UserError(f"a line of {folder.metrics} or {folder.validation.name} is damaged: {error!r}") from error
    if not over:  # else its optimiser may have been removed already
        world.done_by_all(lambda: optimizer.restore(checkpoints.optimizer(state.step)))
    return watch


def _go_on_from(folder: JobDir, kept: _Kept, wrong: UserError | None) -> None:
    """Drop what came after a checkpoint. `wrong`: with a newer one."""
    folder.checkpoints.keep({kept.state.best_step, kept.state.step})  # a kill may have come just before that
    if wrong:
        _forget_end(folder)
    write_lines(folder.metrics, kept.metrics)
    write_lines(folder.validation, kept.validation)


def _begin(folder: JobDir) -> Watch:
    """Drop all but the first evaluation, which a watch has then seen."""
    folder.checkpoints.keep(())
    _forget_end(folder)
    validation = [line for line in whole_lines(folder.validation)[:1] if line.get("step") == 0]
    write_lines(folder.metrics, [])
    write_lines(folder.validation, validation)
    return watched([], validation)


def _state(path: Path, step: int) -> State:
    kept = read_json(path)
    kinds = {"step": int, "evaluated": int, "best_step": int, "best_accuracy": int | float}
    if (
        not isinstance(kept, dict)
        or kept.keys() != kinds.keys()
        or not all(isinstance(kept[key], kind) for key, kind in kinds.items())
        or not 0 <= kept["best_step"] <= kept["evaluated"] <= kept["step"] == step
    ):
        raise UserError(f"{path} is not the state of a training at step {step}")
    return State(**kept)


def _counted(folder: JobDir, step: int, evaluated: int, every: int) -> tuple[list[Json], list[Json]]:
    """The lines of metrics.jsonl and select.jsonl up to a step. Raises UserError where one is missing or damaged."""
    evaluations = sorted({*range(0, evaluated, every), evaluated})
    return _lines(folder.metrics, range(step)), _lines(folder.validation, evaluations)


def _lines(path: Path, steps: Sequence[int]) -> list[Json]:
    """The first lines of a file. Raises UserError unless they are of these steps, each with all figures."""
    lines = whole_lines(path)[: len(steps)]
    if [line.get("step") for line in lines] != list(steps) or not all(lines[0].keys() <= o.keys() for o in lines):
        raise UserError(f"{path} is cut short or damaged: it does not hold every line up to step {steps[-1]}")
    return lines


def _forget_end(folder: JobDir) -> None:
    """Remove the records of the end of a training that will come to another."""
    for tested in folder.tests():
        for which in ("last", "best"):
            tested.records(which).unlink(missing_ok=True)
