"""Tokens and FLOPs of a training step, and how fast a device is taken to be. Pure arithmetic.

A token costs 2 FLOPs a weight that it is multiplied by, and 4 a number of its queries and column that it looks at.
Everything else of a forward is left out: it is small beside them.
"""

from dataclasses import dataclass, replace

from tiltlab.plan.shapes import Ask, Batch, Device, Shape

SHARE = 0.4
"""Of a device's best FLOP/s that scoring and training come to; assumed."""

BANDWIDTH_SHARE = 0.5
"""Of a device's bandwidth that decoding comes to; assumed."""

LAYER = 0.9e-3
"""Seconds a layer of a decoding step takes at least on a GPU: launching its kernels one by one; assumed."""

LAYER_OF_A_GRAPH = 0.1e-3
"""The same where a step is a CUDA graph, in slots and in vLLM; assumed."""

LAYER_ON_CPU = 0.1e-3
"""The same on a CPU; assumed."""

LINK_SHARE = 0.5
"""Of the best rate between two devices that gathering weights and summing gradients come to; assumed."""


@dataclass(frozen=True)
class Step:
    """What a training step handles, every response as long as it may be.

    prompt_tokens: of all prompts, each once.
    tokens: of all responses.
    flops: by phase.
    """

    prompt_tokens: int
    tokens: int
    flops: dict[str, float]


def step_of(shape: Shape, ask: Ask) -> Step:
    """What a training step handles."""
    batch = ask.batch
    once = forward(shape, batch, prompts_for_each=False)
    scored = forward(shape, batch, prompts_for_each=bool(ask.checkpointing))
    backward = scored if shape.adapters else 2 * scored  # with adapters, weights get no gradients
    again = scored if ask.checkpointing else 0.0
    flops = {"rollout": once, "reference": scored, "update": scored + backward + again}
    return Step(batch.groups * batch.prompt, batch.response_tokens, flops)


def forward(shape: Shape, batch: Batch, *, prompts_for_each: bool) -> float:
    """FLOPs of one forward of a batch.

    prompts_for_each: whether a prompt is read for each of its responses, and not once for all.
    """
    prompts = batch.rows if prompts_for_each else batch.groups
    weights = shape.multiplied + shape.adapters
    looked_at = batch.response_tokens * (batch.prompt + batch.tokens / 2) + prompts * batch.prompt**2 / 2
    multiplied = 2.0 * weights * (batch.response_tokens + prompts * batch.prompt)
    return multiplied + 4.0 * shape.layers * shape.attention * looked_at


def assumed_seconds(shape: Shape, ask: Ask, rows: int, keys: int, device: Device) -> dict[str, float]:
    """Seconds of each phase of a step, by the assumptions above; none for a device of unknown speed. Of several ranks
    those of the busiest, and of what they exchange.

    rows: responses that are drawn side by side.
    keys: bytes of keys and values of one row, at its end.
    """
    if device.flops is None or device.bandwidth is None:
        return {}
    flops = step_of(shape, replace(ask, batch=ask.share)).flops
    seconds = {phase: flops[phase] / (SHARE * device.flops) for phase in ("reference", "update")}
    least = seconds_a_layer(ask, device) * shape.layers
    loaded = (shape.weights + rows * keys / 2) / (BANDWIDTH_SHARE * device.bandwidth)
    decoding = ask.batch.tokens * -(-ask.share.rows // rows) * max(least, loaded)
    exchange = {"exchange": exchanged(shape, ask) / (LINK_SHARE * device.link)} if ask.ranks > 1 and device.link else {}
    return {"rollout": max(decoding, flops["rollout"] / (SHARE * device.flops))} | seconds | exchange


def exchanged(shape: Shape, ask: Ask) -> float:
    """Bytes that a rank sends in a step: its part of the weights to each other rank, as they are computed with, and of
    its gradients to each other rank the part that is that rank's."""
    if not ask.trains:
        return 0.0
    return (shape.trained_bytes + 4 * shape.trained) * (ask.ranks - 1) / ask.ranks


def seconds_a_layer(ask: Ask, device: Device) -> float:
    """What a layer of a decoding step takes at least."""
    if not device.is_gpu:
        return LAYER_ON_CPU
    return LAYER_OF_A_GRAPH if ask.in_slots or ask.engine == "vllm" else LAYER
