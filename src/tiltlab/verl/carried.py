"""What of a recipe goes over to verl, and what cannot: refused, or told, a plain line for each thing."""

from collections.abc import Iterator, Sequence

from tiltlab.config.recipe import Recipe
from tiltlab.config.trained import Trained
from tiltlab.errors import UserError
from tiltlab.models.loading import EMBEDDED, ModelConfig
from tiltlab.storage.files import slug
from tiltlab.tasks.base import Task
from tiltlab.training.importance import Correction


def chosen_arm(recipe: Recipe, wanted: str | None) -> Trained:
    """The arm that is meant: by its name, or by its kind where only one that trains is of it.

    wanted: None for the only one that trains.

    Raises UserError where it is none or several, and for one that does not train.
    """
    trained = [arm for arm in recipe.arms if isinstance(arm, Trained)]
    named = [arm for arm in recipe.arms if wanted and slug(arm.name) == slug(wanted)]
    kind = [arm for arm in recipe.arms if wanted in (None, getattr(arm, "arm", None))]
    found = named or [arm for arm in kind if isinstance(arm, Trained)] or kind
    told = ", ".join(repr(arm.name) for arm in (found if len(found) > 1 else trained))
    if not trained:
        raise UserError(
            "no arm of the recipe trains, and verl does nothing but train; add one (tilted, task_reward, ...)"
        )
    if len(found) != 1:
        which = f"{len(found)} arms of the recipe are {wanted or 'to be trained'}" if found else f"no arm is {wanted!r}"
        raise UserError(f"{which}; verl trains one: --arm with one of {told}")
    (arm,) = found
    if not isinstance(arm, Trained):
        raise UserError(f"arm {arm.name!r} samples the base, and verl only trains; --arm with one of {told}")
    return arm


def chosen_task(tasks: Sequence[Task], wanted: str | None) -> Task:
    """The task of that name; None for the only one. Raises UserError where it is none or several."""
    found = [task for task in tasks if wanted in (None, task.name)]
    if len(found) != 1:
        told = ", ".join(task.name for task in tasks)
        which = f"no task is {wanted!r}" if wanted else f"the recipe has {len(tasks)} tasks"
        raise UserError(f"{which}; verl trains on one: --task with one of {told}")
    return found[0]


def require_carried(recipe: Recipe, arm: Trained, gpus: int) -> None:
    """Check that verl can do what the recipe asks.

    gpus: on all nodes together.

    Raises UserError, with a line for each thing that it cannot.
    """
    wrong = [*_of_arm(arm), *_of_model(recipe.model), *_of_training(recipe, gpus)]
    if wrong:
        raise UserError(*wrong)


def _of_arm(arm: Trained) -> Iterator[str]:
    if arm.signal != "task":
        yield f"arm {arm.name!r}: signal {arm.signal} cannot be carried over; verl is rewarded by the task"
    if arm.estimator != "leave_one_out":
        yield f"arm {arm.name!r}: advantage {arm.estimator} cannot be carried over; the plug-in has leave_one_out alone"
    if arm.fixed_length:
        yield f"arm {arm.name!r}: fixed_length cannot be carried over; leave it out"


def _of_model(model: ModelConfig) -> Iterator[str]:
    if model.lora:
        yield "model.lora cannot be carried over: adapters in verl have not been tried; leave it out"
    if model.stop is not None:
        yield "model.stop cannot be carried over: in verl only EOS ends a response; take a model that ends with it"
    if model.dtype == "float32":
        yield "model.dtype float32 cannot be carried over: verl's attention computes in bf16; set it to auto"
    if model.path.endswith(".gguf"):
        yield f"model {model.path} cannot be carried over: verl reads no GGUF; name a folder or an id of the hub"
    if model.revision not in (None, "main"):
        yield f"model.revision {model.revision} cannot be carried over: download it, and name the folder"


def _of_training(recipe: Recipe, gpus: int) -> Iterator[str]:
    budget = recipe.train
    if budget.reward is not None:
        yield "train.reward cannot be carried over: verl grades one response at a time, by the task; leave it out"
    if budget.optimizer.state == "8bit":
        yield "train.optimizer.state 8bit cannot be carried over; set it to device or host"
    rows = budget.prompts * budget.responses
    if rows % gpus:
        yield (
            f"train.prompts x train.responses is {rows}, and {gpus} GPUs cannot share them evenly; change one of them, "
            "or --nodes and --gpus"
        )


def left_behind(recipe: Recipe) -> list[str]:
    """What goes over changed or not at all without making another objective of it, a line for each thing."""
    budget, notes = recipe.train, []
    if budget.optimizer.warmup_steps:
        notes.append(
            f"the learning rate rises from 0 over {budget.optimizer.warmup_steps} steps, not from "
            f"{budget.optimizer.warmup_start:g} of it: verl's warm-up knows no other start, and its first step is none"
        )
    if (recipe.validation.max_tokens or budget.max_tokens) != budget.max_tokens:
        notes.append(
            f"validation draws up to {budget.max_tokens} tokens, as training does: verl has one limit for both"
        )
    if budget.stop_on:
        notes.append(f"train.stop_on stays behind ({', '.join(budget.stop_on)}): verl watches no alarms")
    if recipe.model.path == EMBEDDED:
        notes.append("the embedded model is named by its folder on this machine")
    notes.append("test sets stay behind: draw from the checkpoint that is chosen (README.txt), and from the base")
    return notes


def correction(recipe: Recipe) -> Correction:
    """How responses are weighted: verl's are always drawn by another engine."""
    return recipe.engine.correction or Correction("response")
