"""Bytes by part, while responses are drawn and while weights are updated; of a job on several ranks, on each of them.
Pure arithmetic.

Every response is taken to be as long as it may be, so what is said is the most that a step takes. The sum of an update
is an upper bound: gradients are whole only once most activations are gone.

Left out on purpose: what a device takes for itself, which cards.py sets aside.
"""

from collections.abc import Iterable

from tiltlab.models.context import GrowingLayer
from tiltlab.models.decoding import LEAVE
from tiltlab.models.seating import SMALLEST, bucket
from tiltlab.models.vocabulary import CHUNK_BYTES
from tiltlab.plan.shapes import Ask, Batch, Counted, Device, Part, Phase, Shape, Where

MOMENT_8BIT = 1 + 4 / 256
"""Bytes of a moment of 8 bits: one, and a float32 scale for every 256."""

ASLEEP = 1.5e9
"""Bytes that vLLM keeps on a card while it sleeps; assumed."""


def rollout(model: Counted, ask: Ask, device: Device) -> Phase:
    """What is held while responses are drawn.

    device: whose room decides how many rows there are, where the recipe does not.
    """
    shape, batch = model.shape, ask.share
    parts = _standing(shape, ask)
    if ask.engine == "vllm":
        share = 0 if ask.apart else int(ask.engine_share * device.memory)
        return Phase("rollout", (*parts, Part("engine", share, f"vLLM, {ask.engine_share:.0%} of the device")))
    rows = rows_side_by_side(model, ask, device.usable - standing(shape, ask))
    keys = rows * model.keys(_columns(ask))
    tokens = f"{rows} rows of {batch.prompt} + {batch.tokens} tokens"
    held = [Part("keys and values", keys, f"{tokens}, in slots" if ask.in_slots else f"{tokens}, with room to grow")]
    if not ask.in_slots:
        said = f"once {LEAVE:.3g} of the rows have ended, the others are copied"
        held.append(Part("copy of them", int((1 - LEAVE) * keys), said))
    logits = f"of one token of each row: {DRAWING} bytes for each of {shape.vocabulary} entries"
    held.append(Part("logits", rows * DRAWING * shape.vocabulary, logits))
    return Phase("rollout", (*parts, *held))


DRAWING = 20
"""Bytes an entry of the vocabulary, a row: logits as the head makes them and in float32, probabilities, their sums in
float64."""


def rows_side_by_side(model: Counted, ask: Ask, room: int) -> int:
    """Responses that are drawn together, at least one.

    room: bytes for them.
    """
    batch = ask.share
    tokens = model.drawing(room) if ask.batch_tokens is None else ask.batch_tokens
    return max(1, min(batch.rows, tokens // longest(ask)))


def longest(ask: Ask) -> int:
    """Tokens that a row is counted as by `batch_tokens`."""
    tokens = ask.batch.prompt + ask.batch.tokens
    return bucket(tokens, SMALLEST) if ask.in_slots else tokens


def _columns(ask: Ask) -> int:
    """Of a cache at the end: of slots, or of one that is made for the prompt and grows each time that its room is used
    up."""
    batch = ask.batch
    if ask.in_slots:
        return longest(ask)
    columns = GrowingLayer.with_room(batch.prompt)
    while columns < batch.prompt + batch.tokens - 1:  # the last token is not read
        columns = GrowingLayer.with_room(columns + 1)
    return columns


def update(model: Counted, ask: Ask) -> Phase:
    """What is held at most while weights are updated: the largest micro-batch, before its backward pass."""
    if not ask.trains:
        return Phase("update", ())
    shape = model.shape
    held = [*_standing(shape, ask), *_gradients(shape)]
    if ask.engine == "vllm" and not ask.apart:
        held.append(Part("engine", int(ASLEEP), "vLLM asleep; assumed"))
    last = [*_activations(model, ask), _logits(shape, ask.micro_batch)]
    if ask.ranks > 1:  # a rank's part of the sum is made once the activations are gone
        said = f"4 bytes a trained weight, over {ask.ranks}, summed over ranks"
        last = max(last, [Part("reduced gradients", 4 * shape.trained // ask.ranks, said)], key=_bytes)
    return Phase("update", (*held, *last))


def _bytes(parts: Iterable[Part]) -> int:
    return sum(part.nbytes for part in parts)


def without_activations(shape: Shape, ask: Ask) -> int:
    """Bytes of the device that an update takes before its first forward and after its last."""
    return standing(shape, ask) + (_bytes(_gradients(shape)) if ask.trains else 0)


def _gradients(shape: Shape) -> list[Part]:
    gradients = [Part("gradients", 4 * shape.trained, "4 bytes a trained weight, float32")]
    passing = shape.trained_bytes // max(1, shape.trained) * shape.largest
    if shape.rounded:
        said = "those of the largest tensor, until they are float32"
        gradients.append(Part("gradients of a backward pass", passing, said))
    return gradients


def standing(shape: Shape, ask: Ask) -> int:
    """Bytes of the device that are held all the time."""
    return _bytes(part for part in _standing(shape, ask) if part.where == "device")


def _standing(shape: Shape, ask: Ask) -> list[Part]:
    """What is held all the time."""
    where: Where = "host" if ask.state == "host" else "device"
    base = shape.weights - shape.trained_bytes if shape.adapters else shape.weights
    gathered = ", gathered" if ask.trains and ask.ranks > 1 else ""
    parts = [Part("weights", base, f"{shape.width} bytes a weight{gathered}")]
    if shape.adapters:
        parts.append(Part("adapters", shape.trained_bytes, f"{shape.adapters:,} weights{gathered}"))
    if not ask.trains:
        return parts
    if ask.reference:
        said = f"{shape.width} bytes a weight" + (", on the device while it scores" if where == "host" else "")
        parts.append(Part("reference", shape.weights, said, where))
    return [*parts, *_optimised(shape, ask, where)]


def _optimised(shape: Shape, ask: Ask, where: Where) -> list[Part]:
    """What the optimiser steps on. Of several ranks each has its part; there the float32 weights are FSDP's own, which
    stay on the device."""
    moment = MOMENT_8BIT if ask.state == "8bit" else 4.0
    over = f", over {ask.ranks}" if ask.ranks > 1 else ""
    said = f"4 bytes a trained weight, float32{over}"
    if ask.ranks > 1:
        masters = [Part("master weights", 4 * shape.trained // ask.ranks, said)]
    else:
        masters = [Part("master weights", 4 * shape.rounded, said, where)] if shape.rounded else []
    nbytes = int(2 * moment * shape.trained) // ask.ranks
    return [*masters, Part("moments", nbytes, f"2 x {moment:.3g} bytes a trained weight{over}", where)]


def checkpointing(model: Counted, ask: Ask, device: Device) -> bool:
    """Whether activations are made again: as the recipe says, else as a job decides it on this device."""
    if ask.checkpointing is not None or not device.is_gpu:
        return bool(ask.checkpointing)
    tokens = max(ask.micro_batch_tokens, ask.batch.responses * ask.batch.tokens)
    free = device.usable - standing(model.shape, ask) - 4 * model.shape.trained
    return model.needs_checkpointing(tokens, free)


def _activations(model: Counted, ask: Ask) -> list[Part]:
    shape, batch = model.shape, ask.micro_batch
    if not ask.checkpointing:
        kept = model.kept(batch, whole=False)
        said = f"{batch.groups} x {batch.responses} responses of {batch.tokens} tokens, all that autograd keeps"
        return [Part("activations", kept, said)]
    kept = model.kept(batch, whole=True, checkpointing=True)
    layer = model.kept(batch, whole=True) // shape.layers
    return [
        Part("activations", kept, f"checkpointing: the input of each of {shape.layers} layers"),
        Part("one layer's activations", layer, "made again, a layer at a time"),
    ]


def _logits(shape: Shape, batch: Batch) -> Part:
    """From the final hidden states of a micro-batch to its log-probabilities."""
    chunk = min(batch.response_tokens, max(1, CHUNK_BYTES // (4 * shape.vocabulary)))
    hidden = batch.response_tokens * shape.hidden * shape.width
    return Part(
        "logits",
        hidden + 8 * chunk * shape.vocabulary,
        f"{chunk} positions x {shape.vocabulary} at a time: logits, probabilities; and hidden states of all positions",
    )
