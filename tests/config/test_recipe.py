import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tiltlab.config.methods import Sampled, Taught, named
from tiltlab.config.recipe import Recipe, load_recipe, load_sample_recipe
from tiltlab.config.tasks import load_task
from tiltlab.errors import UserError
from tiltlab.objective import Objective, sharpening, task_reward, tempered, tilted
from tiltlab.storage.natures import nature_of
from tiltlab.tasks.addition import Addition

RECIPES = sorted(Path("recipes").rglob("*.yaml"))

SMALL: dict[str, Any] = {
    "name": "small",
    "tasks": ["lazy-sum"],
    "arms": ["base", "task_reward"],
    "train": {"steps": 2, "prompts": 2, "responses": 2, "max_tokens": 8},
    "validation": {"every": 1, "problems": 2, "n": 1},
    "test": {"problems": 2, "n": 2},
}

DATA = {"task": "data", "train": "train.jsonl", "test": "test.jsonl"}
NAN = math.nan


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
        ({"train": SMALL["train"] | {"stop_on": ["boredom"]}}, "train.stop_on.*length collapse"),
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
        ({"gpus": 0}, "gpus: .*greater than or equal to 1"),
        ({"gpus": 2, "model": {"device": "cuda:1"}}, "gpus 2 does not go with model.device cuda:1: leave"),
        ({"gpus": 2, "model": {"decoding": "slots"}}, "gpus 2 does not go with model.decoding slots"),
        ({"gpus": 2, "engine": {"name": "vllm", "device": "cuda:1"}}, "gpus 2 does not go with engine.device cuda:1"),
        (
            {"gpus": 2, "train": SMALL["train"] | {"optimizer": {"state": "8bit"}}},
            "gpus 2 .* train.optimizer.state 8bit",
        ),
        ({"name": "../up"}, "name: "),
        ({"name": ".."}, "name: the study's folder is called so: .*got '..'"),
        ({"name": "."}, "name: "),
        ({"name": ""}, "name: "),
        ({"name": "a\n"}, "name: "),
        ({"arms": [{"arm": "tempered", "alpha": NAN}]}, r"arms\[1\]: .*finite, got nan"),
        ({"arms": [{"arm": "tilted", "beta": NAN}]}, r"arms\[1\]: .*got nan"),
        ({"arms": [{"arm": "tilted", "beta": 1, "alpha": NAN}]}, r"arms\[1\]: .*finite, got nan"),
        ({"arms": [{"arm": "tempered", "alpha": 2, "length": NAN}]}, r"arms\[1\].length: .*finite number, got nan"),
        ({"arms": [{"arm": "sharpening", "length": -math.inf}]}, r"arms\[1\].length: .*finite number, got -inf"),
        ({"arms": [{"arm": "temperature", "temperature": math.inf}]}, r"arms\[1\].temperature: .*finite"),
        ({"arms": [{"arm": "base", "label": ""}]}, r"arms\[1\].label: a label is one line of 1 to 80 printable"),
        ({"arms": [{"arm": "base", "label": " "}]}, r"arms\[1\].label: a label"),
        ({"arms": [{"arm": "base", "label": "two\nlines"}]}, r"arms\[1\].label: a label"),
        ({"arms": [{"arm": "sharpening", "label": "\x1b[31mred"}]}, r"arms\[1\].label: a label"),
        ({"arms": [{"arm": "base", "label": "x" * 81}]}, r"arms\[1\].label: a label"),
        ({"train": SMALL["train"] | {"optimizer": {"lr": 0}}}, "train.optimizer: lr must be above 0, got 0"),
        ({"train": SMALL["train"] | {"optimizer": {"lr": NAN}}}, "train.optimizer: lr must be .*finite.* got nan"),
        ({"train": SMALL["train"] | {"optimizer": {"betas": [0.9, 1]}}}, "train.optimizer: betas must be"),
        ({"tasks": [{"task": "addition", "digits": [0, 1]}]}, r"tasks\[1\]: addition: digits must be"),
        ({"tasks": [{"task": "addition", "shots": -1}]}, r"tasks\[1\]: addition: shots must be"),
        ({"tasks": [DATA | {"template": r"\boxed{} {question}"}]}, r"tasks\[1\]: template cannot be filled in"),
        ({"tasks": [DATA | {"columns": {"gold": "q"}}]}, r"tasks\[1\]: columns has the keys"),
        ({"tasks": [DATA | {"test": {"hub": "a/b", "splt": "x"}}]}, r"tasks\[1\].test.Hub.splt is no key"),
        ({"tasks": [DATA | {"grader": "judge"}]}, r"tasks\[1\].grader: .*'maths', 'maths_lenient' or 'number'"),
        ({"tasks": ["reasoning_gym"]}, r"tasks\[1\].family is missing"),
        ({"tasks": [DATA | {"validation": 0}]}, r"tasks\[1\]: validation must be at least 1"),
        ({"tasks": []}, "tasks: "),
        ({"name": "n" * 300}, "name: .*no more than 200 bytes"),
        ({"tasks": [DATA | {"template": "{question:>999999999}"}]}, r"tasks\[1\]: template cannot be .*no format"),
        ({"tasks": [DATA | {"template": "{question[0]:>999999999} {question}"}]}, r"tasks\[1\]: template cannot be"),
        ({"tasks": [DATA | {"template": "{question!r}"}]}, r"tasks\[1\]: template cannot be"),
        ({"model": {"lora": {"rank": 0}}}, "model.lora: rank must be 1 or more, got 0"),
        ({"model": {"lora": {"rank": -1}}}, "model.lora: rank must be 1 or more, got -1"),
        ({"model": {"lora": {"rank": 1.5}}}, "model.lora.rank: .*integer"),
        ({"model": {"lora": {"alpha": NAN}}}, "model.lora: alpha must be above 0, got nan"),
        ({"model": {"batch_tokens": 0}}, "model: batch_tokens must be 1 or more, got 0"),
        ({"model": {"batch_tokens": -5}}, "model: batch_tokens must be 1 or more, got -5"),
        ({"model": {"batch_tokens": "many"}}, "model.batch_tokens: .* integer, .* or 'auto', got 'many'"),
        ({"model": {"checkpointing": "maybe"}}, "model.checkpointing: .* boolean, .* or 'auto', got 'maybe'"),
        (
            {"train": SMALL["train"] | {"optimizer": {"state": "cpu"}}},
            "optimizer.state: .* 'host' or '8bit', got 'cpu'",
        ),
        ({"model": {"stop": ""}}, "model: stop must hold some text"),
        ({"model": {"date": "soon"}}, "model.date: .*date.*got 'soon'"),
        ({"test": {"n": 0}}, "test.n: .*greater than or equal to 1, got 0"),
        ({"test": {"n": 10**9}}, "test.n: .*less than or equal to 100000, got 1000000000"),
        ({"test": {"forecast_n": 10**9}}, "test.forecast_n: .*less than"),
        ({"test": {"problems": -1}}, "test.problems: .*greater than"),
        ({"validation": {"every": 0}}, "validation.every: .*greater than"),
        ({"validation": {"every": 1, "n": -3}}, "validation.n: .*greater than"),
        ({"train": SMALL["train"] | {"steps": 0}}, "train.steps: .*greater than"),
        ({"train": SMALL["train"] | {"steps": 10**12}}, "train.steps: .*less than"),
        ({"train": SMALL["train"] | {"prompts": 10**9}}, "train.prompts: .*less than"),
        ({"train": SMALL["train"] | {"responses": 10**9}}, "train.responses: .*less than"),
        ({"train": SMALL["train"] | {"max_tokens": 0}}, "train.max_tokens: .*greater than"),
        ({"train": SMALL["train"] | {"max_tokens": -8}}, "train.max_tokens: .*greater than"),
        ({"train": SMALL["train"] | {"max_tokens": 10**12}}, "train.max_tokens: .*less than"),
        ({"train": SMALL["train"] | {"micro_batch_tokens": 0}}, "train.micro_batch_tokens: .*greater than"),
        ({"arms": [{"arm": "best_of_n", "of": 10**9}]}, r"arms\[1\].of: .*less than"),
        ({"arms": [{"arm": "majority", "of": 10**9}]}, r"arms\[1\].of: .*less than"),
        ({"arms": [{"arm": "beam", "width": 10**9}]}, r"arms\[1\].width: .*less than"),
        ({"arms": [{"arm": "power_smc", "particles": 10**9}]}, r"arms\[1\].particles: .*less than"),
        ({"arms": [{"arm": "power_mcmc", "steps": 10**9}]}, r"arms\[1\].steps: .*less than"),
        ({"tasks": [{"task": "addition", "shots": 10**9}]}, r"tasks\[1\]: addition: shots must be"),
    ],
)
def test_a_recipe_that_is_wrong_is_told_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


LONG = "x" * 200_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"name": LONG},
        {LONG: 1},
        {"train": LONG},
        {"train": SMALL["train"] | {LONG: 1}},
        {"train": SMALL["train"] | {"steps": LONG}},
        {"train": SMALL["train"] | {"steps": list(range(40_000))}},
        {"train": SMALL["train"] | {"optimizer": {"betas": LONG}}},
        {"train": SMALL["train"] | {"stop_on": [LONG]}},
        {"tasks": [LONG]},
        {"tasks": [{"task": LONG}]},
        {"tasks": [{"task": "reasoning_gym", "family": LONG}]},
        {"tasks": [DATA | {"columns": {LONG: LONG}}]},
        {"tasks": [DATA | {"template": LONG}]},
        {"tasks": [DATA | {"template": "{" + LONG}]},
        {"tasks": [DATA | {"template": "{" + LONG + "}"}]},
        {"arms": [LONG]},
        {"arms": [{"arm": "base", "label": LONG}]},
        {"arms": [{"arm": "base", "label": LONG}, {"arm": "base", "label": LONG}]},
        {"model": {"dtype": LONG}},
        {"model": {"lora": LONG}},
    ],
)
def test_a_long_value_makes_no_long_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"recipe.yaml: ") as caught:
        load_recipe(recipe(tmp_path, **changes))
    assert len(str(caught.value)) <= 1000
    assert str(caught.value).isprintable()


LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))])
MERGES = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 40))]
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "is not YAML: its aliases .*more than 100000 values"),
        (LAUGHS + "\nname: *a39", "is not YAML: its aliases"),
        (MERGES, "is not YAML: its aliases"),
        ("name: &a [*a]", "is not YAML: an alias .*part of"),
        ("&a {name: *a}", "is not YAML: an alias"),
        ("name: " + "[" * 100_000, "nested too deep"),
        ("name: " + "[" * 300 + "]" * 300, "r.yaml: name: .*string"),
        ("{a: " * 400 + "1" + "}" * 400, "r.yaml"),
        ("name: x\nseed: 0x" + "f" * 200_000, "r.yaml: "),
        ("name: x\nseed: " + "9" * 200_000, "r.yaml is not YAML: "),
        ("name: [" + "a, " * 200_000 + "]", "r.yaml"),
    ],
    ids=str.split("lists aliased merges itself mapping deep nested mappings hex digits wide"),
)
@pytest.mark.timeout(60)
def test_yaml_that_would_fill_memory_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(str(path))
    assert len(str(caught.value)) <= 1000


def test_aliases_of_a_reasonable_kind_stay(tmp_path: Path) -> None:
    text = Path(recipe(tmp_path)).read_text().replace("seed", "").replace("- base", "- &b base")
    path = tmp_path / "aliased.yaml"
    path.write_text(text + "seed: &s 3\nmodel: {batch_tokens: *s}\n")
    read = load_recipe(str(path))
    assert (read.seed, read.model.batch_tokens) == (3, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("!!python/object:x {}", "not YAML"),
        ("name: 2024-13-45", "r.yaml is not YAML: month"),
        ("name: !!int ''", "r.yaml is not YAML"),
        ("[" * 5000, "r.yaml is not YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_files_that_hold_no_text_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    for name, message in ((path, "it is not UTF-8"), (tmp_path, "Is a directory"), ("a\0b", "embedded null byte")):
        with pytest.raises(UserError, match=f"cannot be read: {message}") as caught:
            load_recipe(str(name))
        assert "\n" not in str(caught.value)


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    path = recipe(tmp_path, tasks=["lazy-sum", {"task": "addition"}], arms=["base", {"arm": "tilted", "beta": 1}])
    read = load_recipe(path, ["tasks.1.digits=[1,1]", "arms.1.beta=0.5", "arms.0=sharpening"])
    assert read.tasks[1] == Addition(digits=(1, 1))
    assert [arm.name for arm in read.arms] == ["sharpening", "tilted 0.5"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "write it as key.key=value"),
        ("=3", "write it as key.key=value"),
        ("train..steps=3", "write it as key.key=value"),
        ("train.steps=[1", "the value of --set train.steps=.1 is not YAML"),
        ("train.steps=2024-13-45", "the value of --set .* is not YAML: month"),
        ("name.x=1", "x is no key here, as 'small' is no mapping"),
        ("arms.2=base", "2 is no entry of a list of 2; they are counted from 0"),
        ("arms.-1=base", "-1 is no entry"),
        ("arms.beta=1", "beta is no entry"),
        ("tasks.0.digits=[1,1]", "digits is no key here, as 'lazy-sum' is no mapping"),
        ("train.steps=" + "x" * 200_000, "train.steps: .*integer"),
        ("name=" + "[" * 100_000, "nested too deep"),
        ("x" * 200_000, "write it as key.key=value"),
        ("arms." + "9" * 200_000 + "=base", "is no entry"),
        ("arms." + "x" * 200_000 + "=base", "is no entry"),
        ("name.x" + "x" * 200_000 + "=1", "is no mapping"),
    ],
)
def test_an_override_that_is_wrong_is_told_in_one_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_recipe(recipe(tmp_path), [override])
    assert "\n" not in str(caught.value)


def test_a_recipe_survives_being_written_down(tmp_path: Path) -> None:
    read = load_recipe(None)
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(read.model_dump(mode="json")))
    assert load_recipe(str(path)) == read


def test_everything_that_is_wrong_with_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    changes = {
        "stepps": 3,
        "tasks": [DATA | {"test": {"hub": "a/b", "splt": "x"}, "grader": "judge"}, "lazysum"],
        "arms": ["base", {"arm": "tempered"}, {"arm": "temperature", "temperature": math.inf, "top_q": 1}],
        "train": {"prompts": 2, "steps": "many"},
    }
    with pytest.raises(UserError) as caught:
        load_recipe(recipe(tmp_path, **changes), ["nokey", "validation.every=0"])
    first, *lines = caught.value.lines
    assert first.startswith("--set nokey")
    assert all("recipe.yaml: " in line for line in lines)
    wheres = [line.split("recipe.yaml: ")[1].split(":")[0].split(" is ")[0] for line in lines]
    assert sorted(wheres) == sorted([
        "stepps", "tasks[1].test.Hub.splt", "tasks[1].grader", "tasks[2]", "arms[2].alpha", "arms[3].temperature",
        "arms[3].top_q", "train.steps", "train.responses", "train.max_tokens", "validation.every",
    ])  # fmt: skip


def test_the_old_name_of_the_validation_split_is_read_and_told_once(tmp_path: Path) -> None:
    old = {key: value for key, value in SMALL.items() if key != "validation"} | {"select": SMALL["validation"]}
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(old | {"tasks": [DATA | {"select": 2}, "lazy-sum"]}))
    new = recipe(tmp_path, tasks=[DATA | {"validation": 2}, "lazy-sum"])
    told: list[str] = []
    assert load_recipe(str(path), on_note=told.append) == load_recipe(new, on_note=told.append)
    assert told == [f"{path}: `select` is called `validation` now; the old name is still read"]
    for changes in (["select.every=3", "tasks.0.select=4"], ["validation.every=3", "tasks.0.validation=4"]):
        for one in (str(path), new):
            read = load_recipe(one, changes)
            assert (read.validation.every, read.tasks[0].validation) == (3, 4)  # type: ignore[union-attr]
    assert load_recipe(new, [f"tasks=[{DATA | {'select': 5}}]"]).tasks[0].validation == 5  # type: ignore[union-attr]
    sample = load_sample_recipe(None, ["split=select", "task={task: data, test: a, select: 3}"], told.append)
    assert (sample.split, sample.task.validation) == ("validation", 3)  # type: ignore[union-attr]
    assert len(told) == 2
    assert load_task(str(DATA | {"select": 7})).validation == 7  # type: ignore[union-attr]
    with pytest.raises(UserError, match="select is no key"):  # which of the two was meant?
        load_recipe(recipe(tmp_path, select={"every": 2}))


def test_a_file_that_is_no_recipe_is_told_in_no_more_than_a_screen(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(recipe(tmp_path, **{f"key{i}": i for i in range(1000)}))
    assert len(caught.value.lines) == 21
    assert caught.value.lines[-1].endswith("and 980 more")


@pytest.mark.parametrize("name", named(Sampled))
def test_every_sampler_has_defaults(name: str) -> None:
    sampler = load_sample_recipe(None, [f"sampler={name}"]).sampler
    assert sampler.arm == name
    assert sampler.objective() is None
    assert sampler.sampler().drawn(4) > 0


@pytest.mark.parametrize("name", named(Taught))
def test_what_trains_is_no_sampler_whatever_it_lacks(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sample_recipe(None, [f"sampler.arm={name}"])
    assert caught.value.lines == [f"the options given: sampler: {name} trains a model; `tiltlab study` does that"]


def test_an_unknown_sampler_is_told_what_there_is() -> None:
    with pytest.raises(UserError, match="sampler: unknown arm 'beem'.*'greedy'") as caught:
        load_sample_recipe(None, ["sampler=beem"])
    assert "sharpening" not in str(caught.value)


@pytest.mark.parametrize(
    ("arm", "nature"),
    [
        ({"arm": "base"}, "base"),
        ({"arm": "temperature", "temperature": 1}, "plain"),
        ({"arm": "temperature", "temperature": 1, "top_p": 0.9}, "likelihood"),
        ({"arm": "temperature", "temperature": 1, "top_k": 5}, "likelihood"),
        ({"arm": "temperature"}, "likelihood"),
        ({"arm": "greedy"}, "likelihood"),
        ({"arm": "majority"}, "answers"),
        ({"arm": "answer_power"}, "answers"),
        ({"arm": "beam"}, "likelihood"),
        ({"arm": "best_of_n", "by": "mean_logp"}, "likelihood"),
        ({"arm": "best_of_n", "by": "reward"}, "reward"),
        ({"arm": "power_mcmc"}, "power"),
        ({"arm": "power_smc", "beta": 0.1}, "reward"),
        ({"arm": "tempered", "alpha": 1}, "trained"),
        ({"arm": "objective", "reward": 1}, "trained"),
        ({"arm": "task_reward", "signal": "vote"}, "trained"),
        ({"arm": "entropy_minimization"}, "trained"),
    ],
)
def test_an_arm_says_what_it_is_and_old_runs_are_read_the_same(arm: dict[str, Any], nature: str) -> None:
    (found,) = Recipe.model_validate(SMALL | {"arms": [arm]}).arms
    assert found.nature == nature
    assert nature_of(found.model_dump(mode="json")) == nature


@pytest.mark.parametrize(
    ("key", "said"),
    [("name", "own is called as the task is that is trained on; leave name out"), ("shots", "Unexpected keyword")],
)
def test_the_own_test_set_takes_no_key_that_would_do_nothing(key: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(SMALL | {"test": {"sets": [{"task": "own", key: "other"}]}})
    kept = Recipe.model_validate(SMALL | {"test": ["own"]}).model_dump(mode="json")
    assert Recipe.model_validate(kept).test.sets[0].task.name == ""
