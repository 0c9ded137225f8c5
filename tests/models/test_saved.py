"""Weights that are not whole, or not in safetensors, are refused in one line; nothing of them is taken up."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models import tiny
from tests.models.test_hf import loaded, saved
from tiltlab.errors import UserError
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import LoraConfig, ModelConfig, load_codec, policy_from
from tiltlab.verdict.inputs import _adapted

Tensors = dict[str, Tensor]
ONE = "layers.1.mlp.up_proj"


def some(tensors: Tensors) -> str:
    return next(name for name in tensors if ONE in name)


def rewritten(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        save_file(change(load_file(file)), file, {"format": "pt"})

    return damage


def as_pickle(file: Path) -> None:
    name = "adapter_model.bin" if file.name.startswith("adapter") else "pytorch_model.bin"
    torch.save(load_file(file), file.with_name(name))
    file.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (rewritten(lambda t: {k: v for k, v in t.items() if k != some(t)}), f"lacks 1 of its tensors .*{ONE}"),
    "unexpected": (
        rewritten(lambda t: t | {"model.layers.9.x": torch.zeros(2)}),
        "no place .*for 1 of its tensors .*9.x",
    ),
    "misshapen": (rewritten(lambda t: t | {some(t): t[some(t)][:-1].contiguous()}), f"another shape for 1 .*{ONE}"),
    "truncated": (lambda file: file.write_bytes(file.read_bytes()[:-100]), "cannot be read"),  # type: ignore[dict-item]
    "empty": (lambda file: file.write_bytes(b""), "cannot be read"),  # type: ignore[dict-item]
    "gone": (Path.unlink, "cannot be read"),
    "pickle": (as_pickle, "cannot be read"),
}


@contextmanager
def policy(lora: bool, **options: Any) -> Iterator[HFModel]:
    base = tiny.model(tiny.llama(**options).requires_grad_(False))
    with policy_from(base, ModelConfig(lora=LoraConfig(rank=2) if lora else None), seed=1) as (found, _):
        yield found


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("lora", [False, True])
def test_a_checkpoint_that_is_not_whole_is_refused(damage: str, lora: bool, tmp_path: Path) -> None:
    spoil, said = DAMAGES[damage]
    with policy(lora) as trained:
        before = trained.fingerprint()
        trained.save(tmp_path)
        spoil(tmp_path / ("adapter_model.safetensors" if lora else "model.safetensors"))
        with torch.no_grad():
            for parameter in trained.trainable().values():
                parameter += 1
        after = trained.fingerprint()
        with pytest.raises(UserError, match=f"{tmp_path.name}.*{said}") as error:
            trained.restore(tmp_path, version=1)
        assert "\n" not in str(error.value)
        assert trained.fingerprint() == after != before


def test_a_checkpoint_of_tied_weights_comes_back_and_one_that_unties_them_does_not(tmp_path: Path) -> None:
    with policy(lora=False, tie_word_embeddings=True) as trained:
        trained.save(tmp_path)
        assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
        trained.restore(tmp_path, version=0)
        rewritten(lambda t: t | {"lm_head.weight": torch.ones(9, 32)})(tmp_path / "model.safetensors")
        with pytest.raises(UserError, match="ties otherwise than the model 1 of its tensors .such as lm_head.weight"):
            trained.restore(tmp_path, version=0)
        rewritten(lambda t: {k: v for k, v in t.items() if "embed" not in k and k != "lm_head.weight"})(
            tmp_path / "model.safetensors"
        )
        with pytest.raises(UserError, match="lacks 2 of its tensors"):
            trained.restore(tmp_path, version=0)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "unexpected"])
def test_a_model_folder_that_is_not_whole_is_refused_in_one_line(
    damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, said = DAMAGES[damage]
    saved(tmp_path)
    spoil(tmp_path / "model.safetensors")
    capfd.readouterr()
    with pytest.raises(UserError, match=said.replace("read", "loaded")) as error:
        loaded(tmp_path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # no report of a line for each weight either


def test_what_a_model_folder_has_too_much_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path)
    before = loaded(tmp_path).fingerprint()
    DAMAGES["unexpected"][0](tmp_path / "model.safetensors")
    assert loaded(tmp_path).fingerprint() == before
    assert "1 tensors have no place in it and are left out (such as model.layers.9.x)" in caplog.text


def test_a_folder_of_adapters_is_no_model(tmp_path: Path) -> None:
    """transformers would load whatever base it names, and forget what that lacks."""
    with policy(lora=True) as trained:
        trained.save(tmp_path)
    saved(tmp_path)
    with pytest.raises(UserError, match="holds adapters, not a model; name the model that they are for"):
        load_codec(ModelConfig(path=str(tmp_path)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_adapters_of_others_are_held_to_the_same(damage: str, tmp_path: Path) -> None:
    with policy(lora=True) as trained:
        trained.save(tmp_path)
    base = tiny.model(tiny.llama().requires_grad_(False))
    _, found = _adapted(base, str(tmp_path))
    assert isinstance(found.module, PeftModel)  # type: ignore[attr-defined]
    DAMAGES[damage][0](tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"adapters .* do not fit model tiny: ") as error:
        _adapted(tiny.model(tiny.llama().requires_grad_(False)), str(tmp_path))
    assert "\n" not in str(error.value)


def test_adapters_are_described_by_the_same_bytes_each_time(tmp_path: Path) -> None:
    with policy(lora=True) as trained:
        trained.save(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert len(config["target_modules"]) > 7
    assert all(value == sorted(value) for value in config.values() if isinstance(value, list))
