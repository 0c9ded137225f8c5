"""A recipe's arm as a folder that verl trains from: settings, data, and the command."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tiltlab.config.recipe import Recipe
from tiltlab.datasets.files import is_file
from tiltlab.errors import UserError
from tiltlab.models.codec import Codec
from tiltlab.models.loading import load_codec
from tiltlab.seeds import batch_indices
from tiltlab.storage.files import make_folder, write_bytes
from tiltlab.study.study import taught
from tiltlab.tasks.base import Task, notes_of
from tiltlab.verl.carried import chosen_arm, chosen_task, left_behind, require_carried
from tiltlab.verl.data import parquet, prompts_of
from tiltlab.verl.keys import NAME, VERSION
from tiltlab.verl.readme import readme, run_script
from tiltlab.verl.settings import Wanted, as_yaml, settings

RUN = "run.sh"
"""Written last: a folder that has it is whole."""


@dataclass(frozen=True)
class Asked:
    """What is to be exported.

    arm: by name or kind; None for the only one that trains.
    task: by name; None for the only one.
    seed: None for the recipe's.
    nodes, gpus: how many, and how many on each.
    """

    arm: str | None = None
    task: str | None = None
    seed: int | None = None
    nodes: int = 1
    gpus: int = 8


def export_verl(recipe: Recipe, asked: Asked, folder: Path, on_note: Callable[[str], None]) -> Wanted:
    """Write one arm of a recipe for verl. Returns what was written.

    folder: made where there is none.
    on_note: told what stays behind, a line at a time.

    Raises UserError, before anything is written, for what verl cannot do and for a folder that holds something else.
    """
    _require_empty(folder)
    arm = chosen_arm(recipe, asked.arm)
    task = chosen_task(taught(recipe), asked.task)
    require_carried(recipe, arm, asked.nodes * asked.gpus)
    codec, seed = load_codec(recipe.model), recipe.seed if asked.seed is None else asked.seed
    files, longest = _data(recipe, task, codec, seed)
    wanted = Wanted(recipe, arm, _entry(recipe, task.name), seed, asked.nodes, asked.gpus, longest, codec.end_ids)
    head = f"# {recipe.name}: {arm.name} on {task.name}, written by `tiltlab export verl` for verl {VERSION}.\n"
    texts = {f"{NAME}.yaml": head + as_yaml(settings(wanted)), "README.txt": readme(wanted), RUN: run_script(wanted)}
    _write(folder, files | {name: text.encode() for name, text in texts.items()})
    for note in (*notes_of(task, "train"), *codec.notes(map(task.render, task.problems("train")[:1]))):
        on_note(note)
    for note in left_behind(recipe):
        on_note(f"{arm.name}: {note}")
    return wanted


def _data(recipe: Recipe, task: Task, codec: Codec, seed: int) -> tuple[dict[str, bytes], int]:
    """The files of data by name, and how many tokens the longest prompt has.

    The rows to train on are those of every step, in the order in which tiltlab draws them by this seed.
    """
    budget = recipe.train
    train, validation = task.problems("train"), task.problems("validation")[: recipe.validation.problems]
    drawn = batch_indices(0, budget.steps * budget.prompts, len(train), seed)
    prompts, longest = prompts_of(task, [train[i] for i in sorted(set(drawn))], codec, budget.max_tokens)
    others, more = prompts_of(task, validation, codec, budget.max_tokens)
    files = {
        "train.parquet": parquet(task, (train[i] for i in drawn), prompts),
        "validation.parquet": parquet(task, validation, others),
    }
    return files, max(longest, more)


def _entry(recipe: Recipe, name: str) -> str:
    """The recipe's entry of a task, on one line, as `--task` takes it anywhere on this machine.

    A $ is written by its number: what verl reads its settings with would take ${...} for another setting.
    """
    entries = recipe.model_dump(mode="json")["tasks"]
    entry = entries[[one.name for one in recipe.tasks].index(name)]
    named = {key: value for key in ("train", "validation", "test") if isinstance(value := entry.get(key), str)}
    whole = entry | {key: str(Path(value).resolve()) for key, value in named.items() if is_file(value)}
    return json.dumps(whole).replace("$", "\\u0024")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """All files, in this order, or none of them."""
    make_folder(folder)
    try:
        for name, data in files.items():
            write_bytes(folder / name, data)
    except BaseException:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # it is somebody else's by now
            folder.rmdir()
        raise


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and is not empty; choose another --out")
