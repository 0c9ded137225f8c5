from pathlib import Path
from typing import Any

import pytest
import yaml

from tiltlab.errors import UserError
from tiltlab.objective import Objective, sharpening, task_reward, tempered, tilted
from tiltlab.recipe import load_recipe

RECIPES = sorted(Path("recipes").glob("*.yaml"))

SMALL: dict[str, Any] = {
    "name": "small",
    "tasks": ["lazy-sum"],
    "arms": ["base", "task_reward"],
    "train": {"steps": 2, "prompts": 2, "responses": 2, "max_tokens": 8},
    "select": {"every": 1, "problems": 2, "n": 1},
    "test": {"problems": 2, "n": 2},
}


def recipe(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return str(path)


@pytest.mark.parametrize("path", [None, *map(str, RECIPES)])
def test_shipped_recipes_hold_all_regimes(path: str | None) -> None:
    arms = {arm.name: arm.objective() for arm in load_recipe(path).arms}
    assert {objective for objective in arms.values() if objective} >= {sharpening(), task_reward(), tempered(1)}
    assert any(isinstance(o, Objective) and o.reward and o.kl for o in arms.values())
    assert arms["base"] is None


def test_a_regime_is_a_value(tmp_path: Path) -> None:
    arms = [
        {"arm": "tempered", "alpha": 1},
        {"arm": "tempered", "alpha": 4, "length": "mean"},
        {"arm": "tilted", "beta": 0.1, "alpha": 2, "fixed_length": True},
        {"arm": "objective", "reward": 1, "sharpen": 0.5, "kl": 0.2, "label": "mine"},
        {"arm": "temperature", "temperature": 0.5},
    ]
    read = load_recipe(recipe(tmp_path, arms=arms)).arms
    assert [arm.name for arm in read] == [
        "null control", "tempered 4, length mean", "tilted 0.1, alpha 2, fixed length", "mine", "temperature 0.5",
    ]  # fmt: skip
    assert [arm.objective() for arm in read] == [
        tempered(1), tempered(4, length="mean"), tilted(0.1, alpha=2), Objective(1, 0.5, 0.2), None,
    ]  # fmt: skip


def test_overrides_change_one_key(tmp_path: Path) -> None:
    read = load_recipe(recipe(tmp_path), ["train.steps=7", "model.lora.rank=4", "train.optimizer.lr=3e-4"])
    assert read.train.steps == 7
    assert read.model.lora is not None
    assert read.model.lora.rank == 4
    assert read.train.optimizer.lr == 3e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepps": 3}, "stepps is no key"),
        ({"train": SMALL["train"] | {"step": 3}}, "train.step is no key"),
        ({"model": {"path": "embedded", "dtyp": "auto"}}, "model.dtyp is no key"),
        ({"arms": ["tempred"]}, r"arms\[1\]: unknown arm 'tempred'; it is one of .*'tempered'"),
        ({"tasks": ["lazysum"]}, r"tasks\[1\]: unknown task 'lazysum'"),
        ({"arms": [{"arm": "tilted", "beta": -0.1}]}, r"arms\[1\]: tilted needs beta > 0, got -0.1"),
        ({"arms": [{"arm": "objective", "reward": 1, "kl": -1}]}, "beta .* must not be negative, got -1"),
        ({"arms": [{"arm": "tilted", "beta": 0, "alpha": 2}]}, "for beta = 0 use task_reward, where alpha has no"),
        ({"arms": [{"arm": "task_reward", "alpha": 2}]}, r"arms\[1\].alpha is no key"),
        ({"arms": [{"arm": "tempered"}]}, r"arms\[1\].alpha is missing"),
        ({"arms": ["base", "base"]}, "two arms are called 'base'"),
        ({"arms": [{"arm": "base", "label": "a b"}, {"arm": "sharpening", "label": "a-b"}]}, "or nearly so"),
        ({"train": SMALL["train"] | {"responses": 1}}, "train.responses: .*greater than or equal to 2"),
        ({"train": SMALL["train"] | {"steps": "many"}}, "train.steps: .*integer.*got 'many'"),
        ({"name": "../up"}, "name: "),
        ({"tasks": []}, "tasks: "),
    ],
)
def test_a_recipe_that_is_wrong_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("!!python/object:x {}", "not YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="key.key=value"):
        load_recipe(None, ["train.steps"])
