"""A recipe's `engine`: what it may say, and how it is told what it may not."""

from math import inf

import pytest

from tiltlab.config.engine import EngineConfig
from tiltlab.config.recipe import Recipe, load_recipe, with_defaults
from tiltlab.errors import UserError
from tiltlab.training.importance import Correction


def engine(*settings: str) -> EngineConfig:
    return load_recipe(None, [f"engine{setting}" for setting in settings]).engine


def test_the_model_itself_draws_and_nothing_is_corrected_unless_asked_for() -> None:
    assert engine() == engine("=hf") == engine("={name: hf}") == EngineConfig()
    assert engine().corrects == Correction("nothing")
    assert engine("={correction: {over: response, cap: .inf}}").corrects == Correction("response", inf)


def test_another_engine_is_corrected_for_over_responses_unless_asked_otherwise() -> None:
    assert engine("=vllm").corrects == Correction("response", 2.0)
    assert engine("=vllm").share == 0.5
    there = engine("={name: vllm, device: cuda:1, memory: 0.9, correction: {over: token, cap: 5}}")
    assert there == EngineConfig("vllm", "cuda:1", 0.9, Correction("token", 5.0))
    assert engine("={name: vllm, correction: {over: nothing}}").corrects.over == "nothing"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("=sglang", "engine.name: Input should be 'hf' or 'vllm', got 'sglang'"),
        ("={name: vllm, devize: cuda:1}", "engine.devize is no key of its section"),
        ("={name: vllm, device: gpu}", "engine: device is same, or a GPU such as cuda:1, got 'gpu'"),
        ("={name: vllm, memory: 0}", "engine: memory is a share, above 0 and at most 1, got 0.0"),
        ("={name: vllm, memory: 40}", "engine: memory is a share, above 0 and at most 1, got 40.0"),
        ("={device: cuda:1}", "engine: hf draws where the model is; leave device and memory out"),
        ("={memory: 0.5}", "engine: hf draws where the model is; leave device and memory out"),
        ("={correction: {cap: 0.5}}", "engine.correction: cap must be 1 or more (.inf for none), got 0.5"),
        ("={correction: {cap: .nan}}", "engine.correction: cap must be 1 or more (.inf for none), got nan"),
        ("={correction: {over: word}}", "engine.correction.over: Input should be 'response', 'token' or 'nothing'"),
        ("={correction: {drop: true}}", "engine.correction.drop is no key of its section"),
        ("=[vllm]", "engine"),
        ("=null", "engine"),
        ("=7", "engine"),
    ],
)
def test_what_cannot_be_is_one_line_with_its_key(setting: str, said: str) -> None:
    with pytest.raises(UserError) as told:
        engine(setting)
    (line,) = told.value.lines
    assert said in line
    assert "engine" in line.split(":", 1)[1]


def test_a_study_of_a_version_without_engines_is_gone_on_with() -> None:
    recipe = load_recipe(None).model_dump(mode="json")
    assert recipe.pop("engine")["name"] == "hf"
    assert with_defaults(Recipe, recipe) == load_recipe(None).model_dump(mode="json")


def test_a_recipe_without_a_cap_is_read_back_as_it_was_kept() -> None:
    kept = load_recipe(None, ["engine={correction: {cap: .inf}}"]).model_dump(mode="json")
    assert with_defaults(Recipe, kept) == kept
