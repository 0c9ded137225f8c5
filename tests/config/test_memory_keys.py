from typing import Any

import pytest

from tiltlab.config.memory_keys import without_memory_keys
from tiltlab.config.recipe import Recipe, load_recipe, with_defaults


def plain(*overrides: str) -> dict[str, Any]:
    return load_recipe(None, overrides).model_dump(mode="json")


@pytest.mark.parametrize(
    "override",
    [
        "model.batch_tokens=77",
        "model.checkpointing=true",
        "model.decoding=slots",
        "train.micro_batch_tokens=8",
        "train.optimizer.state=host",
        "gpus=4",
    ],
)
def test_how_a_study_is_held_is_not_what_it_is(override: str) -> None:
    assert plain(override) != plain()
    assert without_memory_keys(plain(override)) == without_memory_keys(plain())


@pytest.mark.parametrize("override", ["train.optimizer.state=8bit", "train.optimizer.lr=0.5", "model.dtype=bfloat16"])
def test_what_makes_other_steps_stays(override: str) -> None:
    assert without_memory_keys(plain(override)) != without_memory_keys(plain())


def test_a_study_of_before_these_keys_is_the_same_study() -> None:
    before = plain()
    before["model"] |= {"batch_tokens": 32768, "checkpointing": False}
    del before["train"]["optimizer"]["state"], before["gpus"]
    assert without_memory_keys(with_defaults(Recipe, before)) == without_memory_keys(plain())


def test_what_is_no_recipe_is_left_as_it_is() -> None:
    assert without_memory_keys({"model": None, "train": [], "x": 1}) == {"model": None, "train": [], "x": 1}
