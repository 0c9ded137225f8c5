"""The order in which vLLM is asked for things on a GPU, with nobody there to do them."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.engines.installed import vllm_installed
from tests.models.tiny import model
from tiltlab.engines import vllm
from tiltlab.engines.vllm import VERSION, VLLM
from tiltlab.models.engine import Drawn, Request, Split

WAKES = [("given back",), ("wake", ["weights"]), ("send",), ("wake", ["kv_cache"]), ("forget",)]
DRAWS = "draw"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What vLLM, and whoever sends it weights, were asked for so far."""
    calls: list[tuple[Any, ...]] = []

    class Nobody:
        pid = 0

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def call(self, name: str, *arguments: Any) -> Any:
            calls.append((name, *arguments) if name != DRAWS else (name,))
            return [((3, 0), (-1.0, -0.5)) for _ in arguments[0]] if name == DRAWS else None

        def kill(self) -> None:
            calls.append(("kill",))

    vllm_installed(monkeypatch, vllm=VERSION)
    monkeypatch.setattr(vllm, "Remote", Nobody)
    monkeypatch.setattr(vllm, "give_back", lambda: calls.append(("given back",)))
    monkeypatch.setattr(VLLM, "_by_gpu", lambda *_: lambda: calls.append(("send",)))
    return calls


def on_gpu(monkeypatch: pytest.MonkeyPatch, *, shares: bool) -> VLLM:
    monkeypatch.setattr(vllm, "gpu_beside", lambda *_: ("0", shares))
    return VLLM(model())


def test_on_the_trainer_s_gpu_it_sleeps_whenever_it_does_not_draw(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights go with its memory: it draws from none that were not sent since it woke. What torch keeps of the GPU
    for the trainer's next tensors is given back before vLLM takes its share."""
    engine = on_gpu(monkeypatch, shares=True)
    assert asked == [("given back",), ("started",), ("sleep",)]
    trained = model()
    both = Split(trained, engine)
    rows = [Request((1, 2), 5, 0), Request((1, 2), 5, 1)]
    for trains in (True, False, True):
        asked.clear()
        drawn = both.draw(rows, 1.0, ignore_eos=False)
        assert asked == [*WAKES, (DRAWS,), ("sleep",)]
        assert drawn == [Drawn((3, 0), (-1.0, -0.5), True)] * 2
        assert engine.version == trained.version
        if trains:
            trained.updated()
    engine.close()
    assert asked[-1] == ("kill",)


def test_on_a_gpu_of_its_own_it_stays_awake_and_is_sent_each_version_once(asked, monkeypatch) -> None:
    engine = on_gpu(monkeypatch, shares=False)
    trained = model()
    both = Split(trained, engine)
    rows = [Request((1, 2), 5, 0)]
    asked.clear()
    for _ in range(2):
        both.draw(rows, 1.0, ignore_eos=False)
    trained.updated()
    both.draw(rows, 1.0, ignore_eos=True)
    assert asked == [("send",), ("forget",), (DRAWS,), (DRAWS,), ("send",), ("forget",), (DRAWS,)]
    engine.close()


def test_weights_that_could_not_be_sent_are_no_version(asked, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = on_gpu(monkeypatch, shares=False)
    engine.update(list, 1)

    def failing() -> None:
        raise RuntimeError

    engine._send = failing
    with pytest.raises(RuntimeError):
        engine.update(list, 2)
    assert engine.version == -1
    engine.close()


@pytest.mark.parametrize("backend", ["ipc", "nccl"])
def test_senders_are_told_what_vllm_s_own_ask_for(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    class Sender:
        def send_weights(self) -> None:
            told["sent"] = dict(told["source"])

    def made(info: Any, *, client: Any, source: Any) -> Sender:
        told.update(info=info, client=client, source=source)
        return Sender()

    fakes: dict[str, dict[str, Any]] = {
        "factory": {"WeightTransferTrainerFactory": SimpleNamespace(trainer_init=made)},
        "ipc_engine": {"IPCTrainerInitInfo": _info("ipc")},
        "nccl_engine": {"NCCLTrainerInitInfo": _info("nccl")},
        "base": {"ParamMeta": lambda *values: values},
    }
    for name in ("vllm", "vllm.distributed", "vllm.distributed.weight_transfer"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    ports = ModuleType("network_utils")
    vars(ports)["get_open_port"] = lambda: 1234
    monkeypatch.setitem(sys.modules, "vllm.utils", ModuleType("utils"))
    monkeypatch.setitem(sys.modules, "vllm.utils.network_utils", ports)
    for name, names in fakes.items():
        module = ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, f"vllm.distributed.weight_transfer.{name}", module)
    monkeypatch.setattr(torch.cuda, "device", lambda _: torch.no_grad())
    trained, calls = model(), []
    engine = object.__new__(VLLM)
    engine._weights = trained.weights
    monkeypatch.setattr(engine, "_call", lambda *call: calls.append(call), raising=False)
    send = engine._by_gpu(backend, torch.device("cuda:0"), 2**30)
    kind, values, named = told["info"]
    assert kind == backend
    assert named["packed_buffer_size_bytes"] == 2**30  # holds the largest weight
    assert named["rank"] == 0
    assert backend == "ipc" or (values == ("127.0.0.1", 1234) and named["world_size"] == 2)
    send()
    assert list(told["sent"]) == [name for name, *_ in told["source"].metadata()] == list(dict(trained.weights()))
    client = told["client"]
    client.init_weight_transfer_engine({"a": 1})
    client.start_weight_update()
    client.update_weights({"b": 2})
    client.finish_weight_update()
    assert calls == [
        ("worker", "init_weight_transfer_engine", {"init_info": {"a": 1}}),
        ("worker", "start_weight_update", {}),
        ("worker", "update_weights", {"update_info": {"b": 2}}),
        ("worker", "finish_weight_update", {}),
    ]


def _info(kind: str) -> Callable[..., Any]:
    return lambda *values, **named: (kind, values, named)
