"""The paper's recipes: two steps of each on a random model of the same make, four layers of 64, on real problems.

The rows are those of shared/data beside the checkout; where that is not there, the tests say so and are skipped.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, PreTrainedConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from tests.config.test_recipe import RECIPES
from tests.models.chats import model_folder, tokenizer
from tests.processes import ROOT
from tests.report.written import write_report
from tiltlab.config.recipe import Recipe, load_recipe
from tiltlab.report.load import load_study
from tiltlab.storage.files import read_lines
from tiltlab.storage.records import read_records
from tiltlab.study.estimate import estimate
from tiltlab.study.study import run_study

SHARED = ROOT.parent / "shared" / "data"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the rows of real problems are not there ({SHARED})"),
]

MAKES: dict[str, type[PreTrainedConfig]] = {
    "llama-3.2-3b": LlamaConfig,
    "qwen2.5-3b": Qwen2Config,
    "qwen3-4b": Qwen3Config,
    "one-evening": Qwen2Config,
}
"""What the models of the recipes are, by the recipe's file."""

ROWS: dict[str, list[tuple[str, str]]] = {
    "llama-3.2-3b": [
        ("tasks.0.train", "math_train"),
        ("tasks.0.test", "math_test"),
        ("test.sets.0.test", "math500"),
        ("test.sets.1.test", "minerva_math"),
    ],
    "qwen3-4b": [("tasks.0.train", "math_train"), *((f"test.sets.{i}.test", "math500") for i in range(4))],
    "one-evening": [
        ("tasks.0.train", "gsm8k_train"),
        ("tasks.0.test", "gsm8k_test"),
        ("test.sets.1.test", "math500"),
    ],
}
ROWS["qwen2.5-3b"] = ROWS["llama-3.2-3b"]
"""Where the hub's rows are put in their place: a recipe's key, and a file."""

SMALLER = [
    "tasks.0.validation=4",
    "train.steps=2",
    "train.prompts=2",
    "train.responses=3",
    "train.max_tokens=6",
    "train.optimizer.lr=1e-3",
    "validation={every: 2, problems: 2, n: 1}",
    "test.n=2",
    "test.problems=2",
    "test.forecast_n=2",
    "test.max_tokens=8",
]


@cache
def chats() -> PreTrainedTokenizerFast:
    """Byte pairs of a few problems."""
    return tokenizer(row["problem"] for row in read_lines(SHARED / "math500.jsonl")[:200])


def small(name: str, folder: Path, *more: str) -> Recipe:
    """A recipe with a small model, a few local rows and small sizes, all by --set."""
    overrides = [f"model.path={model_folder(MAKES[name], chats(), folder / 'model')}", "model.device=cpu"]
    for key, source in ROWS[name]:
        path = folder / f"{key}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in read_lines(SHARED / f"{source}.jsonl")[:12]))
        overrides.append(f"{key}={path}")
    if name == "one-evening":
        overrides.append("test.sets.1.max_tokens=8")
    return load_recipe(f"recipes/paper/{name}.yaml", [*overrides, *SMALLER, *more])


REGIMES = "arms=[base, {arm: tempered, alpha: 0.5}, sharpening, task_reward, {arm: tilted, beta: 0.01, alpha: 1.25}]"


@pytest.mark.parametrize("name", MAKES)
def test_a_recipe_of_the_paper_trains_and_is_tested_on_every_set(name: str, tmp_path: Path) -> None:
    recipe = small(name, tmp_path, REGIMES)
    run = tmp_path / "run"
    assert not run_study(recipe, run, seeds=1, jobs=1, devices=["cpu"], on_progress=lambda *_: None)
    study = load_study(run)
    assert (study.missing, study.failed) == (0, [])
    tests = recipe.tests_of(recipe.tasks[0].name)
    assert [test.name for test in study.tests.values()] == [test.name for test in tests]
    for arm in study.arms:
        (seeded,) = arm.seeds
        test = next(one for one in tests if one.name == study.tests[arm.task].name)
        assert len(seeded.last) == 2 * test.n
        assert {record.task for record in seeded.last} == {test.name}
        assert not (arm.trained and study.tests[arm.task].leads) or [line["step"] for line in seeded.metrics] == [0, 1]
    cut = [record for path in run.rglob("records-last.jsonl") for record in read_records(path) if not record.complete]
    assert cut  # a random model seldom ends, and what it drew is trained on and graded as it stands
    assert all(
        line["no_signal"] < 1 for path in run.glob("cells/*/sharpening/*/metrics.jsonl") for line in read_lines(path)
    )
    assert write_report(run).exists()


@pytest.mark.parametrize("name", MAKES)
def test_the_whole_grid_is_planned_offline(name: str, tmp_path: Path) -> None:
    planned = estimate(small(name, tmp_path), tmp_path / "run", seeds=1)
    assert len(planned.jobs) == len(load_recipe(f"recipes/paper/{name}.yaml").arms)
    assert not (tmp_path / "run").exists()


def test_every_recipe_of_the_paper_is_among_them() -> None:
    assert {path.stem for path in RECIPES if path.parent.name == "paper"} == set(MAKES)


@pytest.mark.parametrize("name", ["llama-3.2-3b", "qwen2.5-3b", "qwen3-4b"])
def test_a_recipe_has_the_papers_settings(name: str) -> None:
    recipe = load_recipe(f"recipes/paper/{name}.yaml")
    train, optimizer = recipe.train, recipe.train.optimizer
    sizes: dict[str, Any] = {"qwen3-4b": (64, 8, 1000, 4096)}
    assert (train.prompts, train.responses, train.steps, train.max_tokens) == sizes.get(name, (32, 8, 500, 2048))
    assert (optimizer.lr, optimizer.betas, optimizer.warmup_steps, optimizer.warmup_start) == (
        1e-6,
        (0.9, 0.999),
        50,
        0.1,
    )
    assert (optimizer.max_grad_norm, train.truncated, recipe.seed, recipe.validation.every) == (1, "keep", 42, 20)
    objectives = [objective for arm in recipe.arms if (objective := arm.objective())]
    grid = {(round(o.sharpen / o.kl + 1, 6), o.reward and o.kl) for o in objectives if o.kl}
    assert grid == {(alpha, beta) for alpha in (0.5, 1, 1.25, 2, 4) for beta in (0, 0.01, 0.0001)}
    assert {(o.reward, o.sharpen) for o in objectives if not o.kl} == {(1, 0), (0, 1)}
