"""A model that several ranks train: every rank draws and scores by itself, and the trained weights are shared out.

What FSDP2 shards over the ranks are the float32 weights, and with them gradients and the optimiser's state. They are
gathered once a step, in the dtype that the model computes in, and stay until the next: forwards and backwards then
communicate nothing, and ranks may have as many of them as they like. (With FSDP2's own rhythm, a collective in every
forward and backward, ranks with unlike numbers of micro-batches wait for each other for ever.) Gradients pile up whole,
in float32, and are reduced once a step.

Memory a rank, in bytes a weight of a bf16 model on N ranks: 2 gathered, 4 for the gradient, 12 / N for weight and
moments; and 2 for a reference of its own.

Collectives are `Optimizer.step`, and here: making the model, `updated`, `restore`. All else concerns one rank.

Left out on purpose: gathering layer by layer (for models that no GPU holds whole), ranks on several nodes, and decoding
in slots, whose graphs would read weights where they were before the last step.
"""

from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from tiltlab.errors import UserError
from tiltlab.models.base import Policy
from tiltlab.models.codec import Codec
from tiltlab.models.engine import Split
from tiltlab.models.hf import HFModel
from tiltlab.models.saved import read_adapters, read_module
from tiltlab.models.shards import Shards
from tiltlab.system.world import World


class _Root(nn.Module):
    """Holds what is sharded together but for the layers. Its forward only has FSDP prepare itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self) -> None:
        pass


class ShardedHFModel(HFModel):
    """An HFModel whose trained weights are sharded over the ranks of a world. A collective.

    module, codec, keep: as for HFModel; the same on every rank. The weights that it trains may be of any dtype: the
        sharded ones are float32, and what is computed with is rounded to the weights' own.
    world: of more than one rank, or of one for a test.

    Raises UserError as HFModel does, and where decoding in slots is asked for by name.
    """

    def __init__(self, module: Any, codec: Codec, *, world: World, **keep: Any) -> None:
        if keep.get("decoding") == "slots":
            raise UserError("model.decoding slots is for a job on one GPU; choose auto or plain, or engine.name vllm")
        super().__init__(module, codec, **keep | {"decoding": "plain"})
        trained = dict(self.trainable())
        mesh = init_device_mesh(self.device.type, (world.size,))
        self._parts = _sharded(module, mesh, adapters=self._has_adapter)
        tensors = {name: p for name, p in module.named_parameters() if name in trained}
        for part in self._parts:
            part.set_requires_gradient_sync(False)
            part.set_reshard_after_backward(False)
            part.set_is_last_backward(False)
        self._parts[-1]()
        self._gather()
        self.shards = Shards({name: p for name, p in tensors.items() if isinstance(p, DTensor)}, world)

    def updated(self) -> None:
        """Count one more update, and gather the weights. A collective."""
        super().updated()
        self._gather()

    def restore(self, folder: Path, version: int) -> None:
        """As `HFModel.restore`, from a folder that every rank sees. A collective, where no rank raises."""
        read = read_adapters if self._has_adapter else read_module
        for name, tensor in read(self.module, folder).items():
            if name in self.shards.tensors:
                self.shards.take(name, tensor.float())
        self._version = version
        self._gather()

    def _gather(self) -> None:
        for part in self._parts:
            part.reshard()
            part.unshard()


def shards_of(policy: Policy) -> Shards | None:
    """The sharded weights of a policy; None where it is trained by one process."""
    trained = policy.trained if isinstance(policy, Split) else policy
    return trained.shards if isinstance(trained, ShardedHFModel) else None


def _sharded(module: Any, mesh: Any, *, adapters: bool) -> list[Any]:
    """The modules that FSDP gathers each by itself, the root last; weights that are not trained stay as they are.

    Adapters are few: they go together, and the layers that they are on, the reference's too, stay what they were.
    """
    root = _Root(module)
    dtype = module.get_input_embeddings().weight.dtype
    policy = MixedPrecisionPolicy(param_dtype=None if adapters else dtype, cast_forward_inputs=False)
    frozen = {p for p in module.parameters() if not p.requires_grad}
    blocks = set(getattr(module, "_no_split_modules", None) or ())
    layers = [] if adapters else [part for part in module.modules() if type(part).__name__ in blocks]
    for part in (*layers, root):
        for parameter in part.parameters():
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                parameter.data = parameter.data.float()
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=False, ignored_params=frozen)
    return [*layers, root]
