"""How much of a batch is held at once: less, once memory has run out.

Left out on purpose: more again, once it might do. What fits depends on the longest responses, whenever they come.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tiltlab.errors import UserError
from tiltlab.system.devices import unless_memory_runs_out

Result = TypeVar("Result")

Batches = list[list[int]]
"""Numbers of groups, by micro-batch."""

REMEDIES = "model.checkpointing=true, train.optimizer.state=host, model.lora or fewer train.responses may help"


@dataclass
class Room:
    """Bounds that were halved when memory ran out, and are kept for all later steps.

    micro_batch_tokens: response tokens (padding included) of one backward pass.
    batch_tokens: of drawing, as HFModel has it; None where that was never halved.
    halved: how often either was, since this was made.
    keep: told after each step in which one was, so that a later try begins with what fits.
    """

    micro_batch_tokens: int
    batch_tokens: int | None = None
    halved: int = 0
    keep: Callable[["Room"], None] = field(default=lambda _: None)

    def drew_with(self, batch_tokens: int) -> None:
        """Take note that drawing had to do with fewer tokens than it began with (`HFModel.ran_out`)."""
        self.batch_tokens, self.halved = batch_tokens, self.halved + 1
        self.keep(self)

    def fit(
        self, work: Callable[[Batches], Result], divide: Callable[[int], Batches], drop: Callable[[], None]
    ) -> Result:
        """What `work` returns for micro-batches that fit.

        work: done from its beginning again with smaller ones, where memory runs out in it.
        divide: groups by number, in micro-batches of at most so many tokens, and of at least one group each.
        drop: undoes what `work` had done before memory ran out.

        Raises UserError where it runs out with every group alone.
        """
        tokens, before = self.micro_batch_tokens, self.halved
        while (done := unless_memory_runs_out(partial(work, batches := divide(tokens)))) is None:
            drop()
            largest = max(map(len, batches))
            if largest == 1:
                raise UserError(f"memory ran out with one group of responses in a backward pass; {REMEDIES}")
            while max(map(len, divide(tokens))) > largest // 2:
                tokens //= 2
            self.halved += 1
        if self.halved > before:
            self.micro_batch_tokens = tokens
            self.keep(self)
        return done
