"""Exports of small models, and verl's own configuration of them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from tests.models.chats import model_folder, tokenizer
from tiltlab.config.recipe import load_recipe
from tiltlab.verl.export import Asked, export_verl
from tiltlab.verl.keys import NAME, PLUGIN
from tiltlab.verl.settings import Wanted

os.environ["VERL_USE_EXTERNAL_MODULES"] = PLUGIN
verl = pytest.importorskip("verl", reason="verl is not installed here: make contract-verl")

ROWS = [
    {"problem": f"A crate holds {i} plums and {i + 3} pears. How many?", "answer": str(2 * i + 3)} for i in range(40)
]

REGIMES: dict[str, dict[str, Any]] = {
    "task reward": {"arm": "task_reward"},
    "tilted": {"arm": "tilted", "beta": 0.3, "alpha": 2.5},
    "sharpening": {"arm": "sharpening"},
    "tempered": {"arm": "tempered", "alpha": 4},
}

PAPER = sorted(path.stem for path in Path("recipes/paper").glob("*b.yaml"))


def rows(folder: Path, name: str, some: slice) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[some]))
    return str(path)


def paper(name: str, folder: Path, *more: str) -> list[str]:
    """What of a recipe of the paper is of the hub, put into a folder: overrides."""
    chats = tokenizer(row["problem"] for row in ROWS)
    test = rows(folder, "test", slice(30, 40))
    sets = len(load_recipe(f"recipes/paper/{name}.yaml").test.sets)
    own = "" if name == "qwen3-4b" else "own"
    return [
        f"model.path={model_folder(LlamaConfig, chats, folder / 'model')}",
        f"tasks.0.train={rows(folder, 'train', slice(0, 20))}",
        f"tasks.0.test={test}",
        f"tasks.0.validation={rows(folder, 'validation', slice(20, 30))}",
        *(f"test.sets.{i}.test={test}" for i in range(sets - bool(own))),
        *more,
    ]


def exported(folder: Path, regime: dict[str, Any], recipe: str | None = None, *overrides: str, gpus: int = 8) -> Wanted:
    """An arm written for verl.

    recipe: the embedded one where left out.
    """
    arms = f"arms=[{json.dumps(regime)}]"
    plan = load_recipe(recipe, ["tasks=[lazy-sum]", arms] if recipe is None else [*overrides, arms])
    return export_verl(plan, Asked(gpus=gpus), folder, lambda _: None)


def composed(folder: Path, overrides: Sequence[str] = ()) -> Any:
    """The configuration as verl's command makes it of an exported folder."""
    from hydra import compose, initialize_config_dir

    where = ["hydra.searchpath=[pkg://verl.trainer.config]", f"tiltlab.folder='{folder}'"]
    with initialize_config_dir(str(folder), version_base=None):
        return compose(NAME, overrides=[*where, *overrides])
