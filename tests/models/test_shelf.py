"""A reference that lies in host memory while it is not scoring."""

from typing import Any

import pytest
import torch

from tests.models import tiny
from tests.training.test_room import Letters
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, policy_from
from tiltlab.models.shelf import Shelf, at_hand
from tiltlab.objective import tilted
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train


def frozen() -> HFModel:
    return tiny.model(tiny.llama().to(torch.bfloat16).requires_grad_(False))


def watched(model: HFModel, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shelve a model; what its weights do from then on."""
    seen: list[str] = []
    come, leave = Shelf.bring_back, Shelf._put_away
    monkeypatch.setattr(Shelf, "bring_back", lambda self: (seen.append("came"), come(self))[1])
    monkeypatch.setattr(Shelf, "_put_away", lambda self: (seen.append("left"), leave(self))[1])
    model.shelve()
    return seen


def test_its_log_probabilities_and_its_weights_are_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, shelved = frozen(), frozen()
    seen = watched(shelved, monkeypatch)
    rollouts = plain.generate(["ab", "c"], n=3, max_tokens=8, seed=0)
    assert torch.equal(
        plain.logprobs(["ab", "c"], rollouts).token_PGT, shelved.logprobs(["ab", "c"], rollouts).token_PGT
    )
    assert shelved.fingerprint() == plain.fingerprint()
    assert seen == ["left", "came", "left"]


def test_in_a_step_it_comes_once_and_leaves_before_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(2, 4, 3, 8, micro_batch_tokens=1)
    with policy_from(frozen(), ModelConfig(), seed=0) as (policy, reference):
        seen = watched(reference, monkeypatch)
        inner: Any = policy.logprobs
        policy.logprobs = lambda *given: (seen.append("update"), inner(*given))[1]  # type: ignore[method-assign]
        optimizer = Optimizer(policy.trainable(), OptimizerConfig())
        list(train(policy, reference, Letters(), tilted(0.1), config, optimizer))
        assert seen == ["left", *(["came", "left"] + ["update"] * 4) * 2]


def test_a_model_without_a_shelf_is_always_at_hand() -> None:
    with at_hand(frozen()):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_its_memory_is_free_while_it_is_away() -> None:
    model = tiny.model(tiny.llama(hidden_size=512, intermediate_size=2048).cuda().requires_grad_(False))
    rollouts = model.generate(["ab"], n=3, max_tokens=8, seed=0)
    before, held = model.logprobs(["ab"], rollouts).token_PGT, torch.cuda.memory_allocated()
    model.shelve()
    size = sum(weight.nbytes for weight in model.module.parameters())
    assert torch.cuda.memory_allocated() <= held - 0.9 * size
    assert torch.equal(model.logprobs(["ab"], rollouts).token_PGT, before)
    assert all(weight.is_pinned() for weight in model.module.parameters())


def test_after_training_the_weights_stay_on_their_device_for_whoever_comes_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = frozen()
    with policy_from(base, ModelConfig(), seed=0) as (_, reference):
        seen = watched(reference, monkeypatch)
    assert seen == ["left", "came"]
    assert reference.shelf is None


def test_memory_that_runs_out_as_it_comes_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = frozen()
    model.shelve()
    rollouts = model.generate(["ab"], n=2, max_tokens=4, seed=0)
    seen = watched(model, monkeypatch)
    with monkeypatch.context() as short:
        short.setattr(torch.Tensor, "to", _no_memory)
        with pytest.raises(torch.OutOfMemoryError):
            model.logprobs(["ab"], rollouts)
    assert model.logprobs(["ab"], rollouts).mask_PGT.any()
    assert seen == ["left", "came", "left", "came", "left"]


def _no_memory(*_: Any, **__: Any) -> torch.Tensor:
    raise torch.OutOfMemoryError


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_its_device_is_the_gpu_even_while_it_is_away() -> None:
    base = tiny.model(tiny.llama().cuda().requires_grad_(False))
    with policy_from(base, ModelConfig(), seed=0) as (_, reference):
        reference.shelve()
        assert base.device.type == "cpu"
        assert reference.device.type == "cuda"
    assert base.device.type == "cuda"
