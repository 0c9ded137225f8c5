"""Models whose files say what cannot be: one line, whatever it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models import tiny
from tiltlab.errors import UserError
from tiltlab.models.loading import LoraConfig, ModelConfig, load_codec, load_reference, policy_from


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.llama().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    config = ModelConfig(path=str(folder), device="cpu")
    return load_reference(config, load_codec(config))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", [1], "not list"),
        ("config.json", "a", "not str"),
        ("config.json", 5, "cannot be loaded.*TypeError"),
        ("config.json", None, "cannot be loaded.*TypeError"),
        ("config.json", {"hidden_size": "x"}, "hidden_size.*expected int, got str"),
        ("config.json", {"hidden_size": 0}, "hidden_size .*a number from 1, got 0"),
        ("config.json", {"hidden_size": 33}, "not a multiple of the number of attention heads"),
        ("config.json", {"num_attention_heads": 0}, "ZeroDivisionError.*config.json"),
        ("config.json", {"num_key_value_heads": 0}, "ZeroDivisionError.*config.json"),
        ("config.json", {"num_key_value_heads": 3}, "has another shape for 4 of its tensors"),
        ("config.json", {"num_hidden_layers": -1}, "num_hidden_layers in its config.json must be .*got -1"),
        ("config.json", {"num_hidden_layers": 0}, "num_hidden_layers in its config.json must be .*got 0"),
        ("config.json", {"vocab_size": -5}, "vocab_size in its config.json must be .*got -5"),
        ("config.json", {"vocab_size": 10**15}, "cannot be loaded|has another shape"),
        ("config.json", {"vocab_size": None}, "vocab_size"),
        ("config.json", {"max_position_embeddings": -3}, "max_position_embeddings .*got -3"),
        ("config.json", {"model_type": "nope"}, "model type `nope`"),
        ("config.json", {"hidden_act": "nope"}, "KeyError: 'nope'"),
        ("config.json", {"eos_token_id": [[1]]}, "eos_token_id"),
        ("config.json", {"pad_token_id": 99}, "pad token is 99"),
        ("config.json", {"rms_norm_eps": float("nan")}, "off by nan"),
        ("generation_config.json", [1], "cannot be loaded.*TypeError"),
        ("generation_config.json", {"eos_token_id": "x"}, "EOS token is 'x'"),
        ("generation_config.json", {"eos_token_id": [0, 400]}, "EOS token is 400"),
        ("tokenizer_config.json", [1], "cannot be loaded.*AttributeError"),
        ("tokenizer.json", [1], "cannot be loaded.*TypeError"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(
    model: Path, tmp_path: Path, file: str, changes: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes if isinstance(changes, dict) else changes))
    capfd.readouterr()
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # nor does anyone else speak


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["nope", "[" * 100_000])
def test_settings_that_are_no_json_are_told_in_one_line(model: Path, tmp_path: Path, file: str, text: str) -> None:
    shutil.copytree(model, tmp_path / "m")
    (tmp_path / "m" / file).write_text(text)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        load(tmp_path / "m")
    assert len(str(caught.value)) < 600


def test_weights_that_a_model_has_no_place_for_are_told(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(model, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 1}))
    load(tmp_path / "m")
    assert "9 tensors have no place in it" in caplog.text
    assert "layers.1." in caplog.text


@pytest.mark.parametrize("path", ["x" * 5000, "a/" * 3000, "~nobody_at_all/m", "a\0b"])
def test_a_path_that_no_file_can_have_is_told_in_one_line(path: str) -> None:
    with pytest.raises(UserError, match="model ") as caught:
        load_codec(ModelConfig(path=path))
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_adapters_wider_than_the_model_are_refused_before_they_are_made(model: Path) -> None:
    base = load(model)
    with (
        pytest.raises(UserError, match="model.lora.rank 1000000000 is more than the hidden size of .* .32."),
        policy_from(base, ModelConfig(lora=LoraConfig(rank=10**9)), seed=0),
    ):
        pass
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=32)), seed=0) as (policy, _):
        assert policy.trainable()
