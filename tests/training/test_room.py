"""Memory that runs out in a step: what was tried counts for nothing, and what fits is done as if from the start."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.models import tiny
from tiltlab.errors import UserError
from tiltlab.models.batching import lots
from tiltlab.models.engine import Request
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, policy_from
from tiltlab.models.slot_decoding import SlotDecoder
from tiltlab.objective import tilted
from tiltlab.system.devices import unless_memory_runs_out
from tiltlab.tasks.lookup import Lookup
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.room import Batches, Room
from tiltlab.training.step_metrics import Metrics
from tiltlab.training.train import TrainConfig, train
from tiltlab.types import Grade, Problem, Rollout

PROMPTS = ["abc", "a", "bcd", "abcd"]
LIMIT = 12


class Letters(Lookup):
    """Rewards for every text: how many letters of it are different."""

    def __init__(self) -> None:
        super().__init__(PROMPTS, {})

    def grade(self, problem: Problem, text: str) -> Grade:
        return Grade(float(len(set(text))), None, "wrong")


def ran_out() -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def by_fours(total: int) -> Callable[[int], Batches]:
    """Groups of four tokens each, in micro-batches of at most so many tokens."""
    return lambda tokens: [
        list(range(start, min(total, start + max(1, tokens // 4)))) for start in range(0, total, max(1, tokens // 4))
    ]


# The room itself


def test_less_is_tried_until_it_fits_and_kept() -> None:
    tried, dropped, kept = [], [], []
    room = Room(10**9, keep=lambda room: kept.append(room.micro_batch_tokens))

    def work(batches: Batches) -> str:
        tried.append(max(map(len, batches)))
        return "done" if tried[-1] <= 2 else ran_out()

    assert room.fit(work, by_fours(16), lambda: dropped.append(len(tried))) == "done"
    assert tried[0] == 16
    assert all(less <= more / 2 for more, less in pairwise(tried))
    fits = tried[-1]
    assert dropped == list(range(1, len(tried)))
    assert room.halved == len(tried) - 1
    assert kept == [room.micro_batch_tokens]
    tried.clear()
    room.fit(work, by_fours(16), lambda: None)
    assert tried == [fits]
    assert len(kept) == 1


def test_a_group_that_does_not_fit_alone_is_one_line_and_changes_nothing() -> None:
    kept: list[Room] = []
    room = Room(64, keep=kept.append)
    with pytest.raises(UserError, match=r"memory ran out with one group.*model.checkpointing=true.*state=host.*lora"):
        room.fit(lambda batches: ran_out(), by_fours(8), lambda: None)
    assert room.micro_batch_tokens == 64
    assert kept == []


def test_what_a_failed_attempt_made_is_given_back_before_the_next() -> None:
    """An exception holds the tensors of every frame that it went through, for as long as it is being handled."""
    freed = []

    class Tensor:
        def __del__(self) -> None:
            freed.append(True)

    def work() -> int:
        held = Tensor()
        return len([held]) and ran_out()

    assert unless_memory_runs_out(work) is None
    assert freed == [True]
    assert unless_memory_runs_out(lambda: 5) == 5
    with pytest.raises(MemoryError):
        unless_memory_runs_out(lambda: (_ for _ in ()).throw(MemoryError()))


# The update


def steps(
    tokens: int, prepare: Callable[[HFModel, HFModel], None] = lambda policy, reference: None
) -> tuple[list[Metrics], str, Room]:
    """Two steps of a bf16 model; metrics, weights and the room."""
    base = tiny.model(tiny.llama().to(torch.bfloat16).requires_grad_(False))
    config = TrainConfig(2, len(PROMPTS), 3, LIMIT, fixed_length=True, micro_batch_tokens=tokens)
    with policy_from(base, ModelConfig(), seed=0) as (policy, reference):
        prepare(policy, reference)
        room = Room(tokens)
        optimizer = Optimizer(policy.trainable(), OptimizerConfig(lr=1e-2, warmup_steps=0))
        metrics = list(train(policy, reference, Letters(), tilted(0.1), config, optimizer, room=room))
        return metrics, policy.fingerprint(), room


def figures(metrics: Sequence[Metrics]) -> list[Metrics]:
    return [{key: value for key, value in line.items() if key not in ("halved", "seconds")} for line in metrics]


def failing(at: int, most: int) -> Callable[[Any], Any]:
    """A `logprobs` that runs out of memory in its `at`-th call, from 0, of any attempt with more than `most` groups."""

    def wrap(model: HFModel) -> None:
        inner, calls = model.logprobs, iter(range(10**6))

        def logprobs(prompts: Sequence[str], rollouts: Sequence[Sequence[Rollout]]) -> Any:
            if next(calls) == at and len(prompts) > most:
                ran_out()
            return inner(prompts, rollouts)

        model.logprobs = logprobs  # type: ignore[method-assign]

    return wrap


FITS = LIMIT * 3
"""One group."""


@pytest.mark.parametrize("who", ["policy", "reference"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_step_that_ran_out_of_memory_is_what_it_would_have_been_with_less(who: str, at: int) -> None:
    """Also where it ran out in the second micro-batch, when the gradient of the first was there already."""
    wrap = failing(at, most=1)
    metrics, weights, room = steps(2 * FITS, lambda policy, reference: wrap(policy if who == "policy" else reference))
    expected = steps(room.micro_batch_tokens)
    assert room.micro_batch_tokens < 2 * FITS
    assert weights == expected[1]
    assert figures(metrics) == figures(expected[0])
    assert [line["halved"] for line in metrics] == [1, 0]
    assert [line["halved"] for line in expected[0]] == [0, 0]


def test_memory_that_runs_out_within_a_backward_pass_leaves_nothing_of_it() -> None:
    """Half of the weights have their gradient, in float32 already, when it happens."""

    def prepare(policy: HFModel, reference: HFModel) -> None:
        late = list(policy.trainable().values())[1]
        calls = iter(range(10**6))
        late.register_hook(lambda gradient: ran_out() if next(calls) == 0 else gradient)

    metrics, weights, room = steps(10**6, prepare)
    expected = steps(room.micro_batch_tokens)
    assert room.halved == 1
    assert weights == expected[1]
    assert figures(metrics) == figures(expected[0])


# Drawing


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[HFModel]:
    """A model whose device holds five rows, and no more."""
    inner = HFModel._draw

    def draw(self: HFModel, requests: Sequence[Request], *rest: Any) -> Any:
        return inner(self, requests, *rest) if len(requests) <= 5 else ran_out()

    monkeypatch.setattr(HFModel, "_draw", draw)
    return tiny.model(batch_tokens=500)


def test_drawing_goes_on_with_fewer_rows_and_says_so_once(crowded: HFModel) -> None:
    told: list[int] = []
    crowded.ran_out = told.append
    drawn = crowded.generate(PROMPTS, n=6, max_tokens=LIMIT, seed=3)
    plenty = tiny.model(batch_tokens=80).generate(PROMPTS, n=6, max_tokens=LIMIT, seed=3)
    assert [[r.tokens for r in group] for group in drawn] == [[r.tokens for r in group] for group in plenty]
    assert told == [crowded.batch_tokens]
    assert crowded.batch_tokens // (LIMIT + 4) <= 5
    crowded.generate(PROMPTS, n=6, max_tokens=LIMIT, seed=4)
    assert len(told) == 1


def test_slots_go_on_with_fewer_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, told, asked = SlotDecoder.draw, [], []

    def draw(self: SlotDecoder, requests: Any, temperature: float, ends: Any, batch_tokens: int) -> Any:
        asked.append(batch_tokens)
        return inner(self, requests, temperature, ends, batch_tokens) if batch_tokens <= 100 else ran_out()

    expected = tiny.model(decoding="slots").generate(PROMPTS, n=6, max_tokens=LIMIT, seed=3)
    monkeypatch.setattr(SlotDecoder, "draw", draw)
    model = tiny.model(decoding="slots", batch_tokens=10_000)
    asked.clear()  # it tried itself
    model.ran_out = told.append
    drawn = model.generate(PROMPTS, n=6, max_tokens=LIMIT, seed=3)
    assert [[r.tokens for r in group] for group in drawn] == [[r.tokens for r in group] for group in expected]
    assert told == [asked[-1]]
    assert asked == sorted(set(asked), reverse=True)


def test_one_row_that_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HFModel, "_draw", lambda *_: ran_out())
    with pytest.raises(UserError, match="memory ran out while one response of up to 12 tokens was drawn"):
        tiny.model().generate(PROMPTS, n=6, max_tokens=LIMIT, seed=3)


def test_lots_hold_every_row_once() -> None:
    rows = [Request((1,) * (i % 3 + 1), 5 + i % 2, 0) for i in range(11)]
    divided = list(lots(rows, range(1, 11), 20))
    assert sorted(row for lot in divided for row in lot) == list(range(1, 11))
    assert all(len({rows[row].limit for row in lot}) == 1 for lot in divided)
