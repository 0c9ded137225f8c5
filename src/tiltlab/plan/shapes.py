"""What a plan is reckoned from: the sizes of a model, and what a recipe asks of it. Pure values.

Left out on purpose: where sizes come from (skeleton.py counts them on a model without weights).

Shapes: _P prompts, _G responses to each, _L tokens of a prompt, _T tokens of a response.
"""

from dataclasses import dataclass, replace
from typing import Literal, Protocol

State = Literal["device", "host", "8bit"]
"""Where the optimiser's float32 weights and moments are: beside the weights, in the machine's own memory, or beside the
weights with moments of 8 bits."""


@dataclass(frozen=True)
class Shape:
    """Counted of a model, with adapters where it gets such.

    key: what rates are kept under: family, sizes, dtype, adapters.
    parameters: weights in all, a tied one once, adapters not counted.
    multiplied: of these, weights that a token is multiplied by: all but an embedding that is no head too.
    adapters: weights of adapters.
    trained: weights that training changes.
    rounded: of these, those that are not float32.
    weights: bytes of all weights, adapters among them.
    trained_bytes: bytes of those that training changes.
    largest: weights of the largest tensor that is trained.
    width: bytes of a weight, and of a number in a hidden state.
    layers, hidden, vocabulary: of the model.
    attention: numbers in a token's queries, over all heads of a layer.
    slots: whether responses of it can be drawn in slots on a GPU (models/slots.py).
    context: tokens that prompt and response may have, None where the config names no limit.
    """

    key: str
    parameters: int
    multiplied: int
    adapters: int
    trained: int
    rounded: int
    weights: int
    trained_bytes: int
    largest: int
    width: int
    layers: int
    hidden: int
    vocabulary: int
    attention: int
    slots: bool = False
    context: int | None = None


@dataclass(frozen=True)
class Batch:
    """Groups that are handled together, every response as long as it may be.

    groups: P. responses: G. prompt: L. tokens: T.
    """

    groups: int
    responses: int
    prompt: int
    tokens: int

    @property
    def rows(self) -> int:
        """Responses in all, P G."""
        return self.groups * self.responses

    @property
    def response_tokens(self) -> int:
        """P G T."""
        return self.rows * self.tokens


NODE = 8
"""GPUs of a node, where nobody says otherwise."""


@dataclass(frozen=True)
class Device:
    """What a study is planned for.

    name: of it.
    memory: bytes that it has.
    usable: bytes of these that there is room in.
    flops: a second at its best, in the dtype that weights have on it; None where not known.
    bandwidth: bytes a second that it reads from its memory; None where not known.
    is_gpu: whether it is one.
    link: bytes a second that it sends to another one of the node, at best; None where not known.
    """

    name: str
    memory: int
    usable: int
    flops: float | None
    bandwidth: float | None
    is_gpu: bool = True
    link: float | None = None


Where = Literal["device", "host"]


@dataclass(frozen=True)
class Part:
    """Something that is held.

    name: what it is.
    nbytes: how much.
    how: what that is reckoned from.
    where: on the device, or in the machine's own memory.
    """

    name: str
    nbytes: int
    how: str
    where: Where = "device"


@dataclass(frozen=True)
class Phase:
    """What is held at once.

    name: of the phase.
    parts: all that is held then.
    """

    name: Literal["rollout", "update"]
    parts: tuple[Part, ...]

    def total(self, where: Where = "device") -> int:
        """Bytes of all parts there."""
        return sum(part.nbytes for part in self.parts if part.where == where)


class Counted(Protocol):
    """A model whose sizes are known, and what it would hold."""

    @property
    def shape(self) -> Shape:
        """Its sizes."""
        ...

    def keys(self, columns: int) -> int:
        """Bytes of keys and values of one row with so many columns, in all layers."""
        ...

    def drawing(self, free: int) -> int:
        """Tokens that are drawn side by side where so many bytes are free and a recipe leaves it open."""
        ...

    def needs_checkpointing(self, tokens: int, free: int) -> bool:
        """Whether a job makes activations of so many tokens again, where so many bytes are free."""
        ...

    def kept(self, batch: Batch, *, whole: bool, checkpointing: bool = False) -> int:
        """Bytes that the layers keep of a forward for its backward pass.

        whole: prompts and responses in one pass, as with checkpointing; else each prompt once for its responses.
        checkpointing: whether the layers' activations are made again in the backward pass.
        """
        ...


@dataclass(frozen=True)
class Ask:
    """What a recipe asks for, as far as memory and time depend on it.

    batch: of a training step, P G L T.
    micro_batch_tokens: response tokens of one backward pass.
    batch_tokens: tokens of one forward without gradients; None for as many as there is room for.
    checkpointing: whether activations are made again in the backward pass; None for where they do not fit otherwise.
    state: of the optimiser.
    reference: whether a second model is held, which training all weights needs and adapters do not.
    trains: whether any arm does; else the model is all that is held.
    engine: that draws: the model itself, or vLLM.
    engine_share: of a card's memory that vLLM takes.
    apart: whether the engine has a card of its own.
    slots: whether the model draws in slots where it can: buffers that stay, each step of them a CUDA graph.
    ranks: processes that work on a job together, each on a device of its own (models/sharded.py).
    alone: whether it asks for what several ranks cannot have.
    """

    batch: Batch
    micro_batch_tokens: int
    batch_tokens: int | None
    checkpointing: bool | None
    state: State
    reference: bool
    trains: bool = True
    engine: Literal["hf", "vllm"] = "hf"
    engine_share: float = 0.5
    apart: bool = False
    slots: bool = False
    ranks: int = 1
    alone: bool = False

    @property
    def in_slots(self) -> bool:
        """Whether the model draws in slots. Several ranks do not."""
        return self.slots and self.ranks == 1

    @property
    def share(self) -> Batch:
        """What the busiest rank has of a step: groups are dealt out whole."""
        return replace(self.batch, groups=-(-self.batch.groups // self.ranks))

    @property
    def micro_batch(self) -> Batch:
        """The largest micro-batch: as many whole groups as fit, at least one."""
        batch = self.share
        groups = max(1, self.micro_batch_tokens // (batch.responses * batch.tokens))
        return Batch(min(groups, batch.groups), batch.responses, batch.prompt, batch.tokens)
