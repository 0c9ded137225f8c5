"""`import tiltlab`: every name that it offers is there, is what it is called, and costs no more than it must."""

import ast
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import tiltlab
from tiltlab.errors import UserError
from tiltlab.models.loading import LoraConfig, ModelConfig

WITHOUT_TORCH = (
    "Objective, task_reward, tilted, sharpening, tempered, load_task, load_model, read_records, make_forecast, "
    "Evidence, decide, __version__"
)


def imported(code: str) -> set[str]:
    """Modules that a fresh Python has loaded after this code."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split())


def test_importing_it_brings_nothing_else() -> None:
    found = imported("import tiltlab")
    assert "tiltlab" in found
    assert not {name for name in found if name.partition(".")[0] in ("torch", "transformers", "numpy", "pydantic")}


def test_no_torch_until_something_loads_or_draws() -> None:
    found = imported(f"from tiltlab import {WITHOUT_TORCH}; load_task('lazy-sum').problems('test'); tilted(0.1)")
    assert "tiltlab.config.tasks" in found
    assert not {"torch", "transformers"} & found


def test_every_name_is_the_thing_itself() -> None:
    homes = {name: import_module(home) for name, home in tiltlab._HOMES.items()}
    assert {name: getattr(tiltlab, name) for name in homes} == {name: getattr(homes[name], name) for name in homes}
    assert set(homes) | {"__version__"} == set(tiltlab.__all__) <= set(dir(tiltlab))


def test_type_checkers_are_told_the_same() -> None:
    tree = ast.parse(Path(tiltlab.__file__).read_text(encoding="utf-8"))
    told = {
        alias.asname: node.module
        for block in tree.body
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == tiltlab._HOMES
    assert (Path(tiltlab.__file__).parent / "py.typed").is_file()


def test_no_name_stands_where_a_package_would_take_its_place() -> None:
    packages = {path.name for path in Path(tiltlab.__file__).parent.iterdir() if path.is_dir()}
    modules = {path.stem for path in Path(tiltlab.__file__).parent.glob("*.py")}
    assert not set(tiltlab.__all__) & (packages | modules)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'tiltlab' has no attribute 'tune'"):
        _ = tiltlab.tune


def test_a_model_is_frozen_unless_it_is_to_be_trained() -> None:
    assert not tiltlab.load_model().trainable()
    policy = tiltlab.load_model(ModelConfig(batch_tokens=4096), trainable=True)
    assert set(policy.trainable()) == {name for name, _ in policy.module.named_parameters()}
    assert policy.batch_tokens == 4096
    with pytest.raises(UserError, match="adapters"):
        tiltlab.load_model(ModelConfig(lora=LoraConfig()), trainable=True)


def test_a_forecast_is_of_the_model_that_drew_the_records() -> None:
    base = tiltlab.load_model()
    task = tiltlab.load_task("lazy-sum")
    problems = task.problems("test")[:4]
    drawn = tiltlab.evaluate(base, base, tiltlab.Temperature(), task, problems, n=8, max_tokens=48, seed=0)[0]
    of_another = [replace(record, ref_logp=record.ref_logp - 5 * record.sample) for record in drawn]
    assert tiltlab.make_forecast(of_another) == tiltlab.make_forecast(drawn)
