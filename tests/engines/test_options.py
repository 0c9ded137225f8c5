"""`--engine`: what is wrong with it is said in one line, before a model is loaded."""

from pathlib import Path

import pytest

from tests.engines.installed import vllm_installed
from tiltlab.cli.main import app
from tiltlab.config.engine import HF, EngineConfig, load_engine
from tiltlab.config.recipe import load_sample_recipe
from tiltlab.engines.vllm import VERSION
from tiltlab.errors import UserError
from tiltlab.models import loading
from tiltlab.models.loading import EMBEDDED
from tiltlab.training.importance import Correction

COMMANDS = {
    "evaluate": ["evaluate", "--task", "lazy-sum", "--out", "OUT"],
    "forecast": ["forecast", "--base", EMBEDDED, "--task", "lazy-sum", "--out", "OUT"],
    "verdict": ["verdict", "--base", EMBEDDED, "--tuned", EMBEDDED, "--task", "lazy-sum", "--out", "OUT"],
    "check": ["check", "lazy-sum", "--model", EMBEDDED, "--out", "OUT/check.html"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("vllm", f"vLLM is not installed: pip install vllm=={VERSION}"),
        ("sglang", "--engine sglang: "),
        ("{name: vllm, memory: 3}", "memory is a share"),
    ],
)
def test_an_engine_that_cannot_be_used_is_told_before_any_work(
    command: str, engine: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("a model was loaded")

    vllm_installed(monkeypatch)
    monkeypatch.setattr(loading, "load_reference", loaded)
    monkeypatch.setattr("tiltlab.evaluation.run.load_reference", loaded)
    monkeypatch.setattr("tiltlab.verdict.inputs.load_reference", loaded)
    arguments = [part.replace("OUT", str(tmp_path)) for part in COMMANDS[command]]
    with pytest.raises(UserError) as error:
        app([*arguments, "--engine", engine], standalone_mode=False)
    assert len(error.value.lines) == 1
    assert said in str(error.value)
    assert not (tmp_path / "records.jsonl").exists()


def test_the_option_says_what_a_recipe_s_key_says() -> None:
    assert load_engine(None) == load_engine("hf") == HF
    assert load_engine("vllm") == EngineConfig("vllm")
    entry = "{name: vllm, device: 'cuda:1', memory: 0.3, correction: {over: token}}"
    wanted = EngineConfig("vllm", "cuda:1", 0.3, Correction("token"))
    assert load_engine(entry) == wanted
    assert load_sample_recipe(None, [f"engine={entry}"]).engine == wanted
    assert load_sample_recipe(None).engine == HF
