"""The processes, or ranks, that work on one job: how many there are, which of them this is, what they tell each other.

Each rank runs the same code; ALONE is the world of a job that runs in one process, where all of this costs nothing.
What is exchanged here are small objects, by gloo; the tensors of a model are FSDP's business (models/sharded.py).

Left out on purpose: noticing that a rank has died. Whoever started the ranks ends the others.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tiltlab.errors import UserError

Item = TypeVar("Item")

PATIENCE = dt.timedelta(days=7)
"""Ranks wait for the slowest, however long its responses are; one that died is not waited for, see above."""


TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What the environment of a rank tells it, as torchrun has it."""


ON_VERL = "runs on verl: tiltlab export verl RECIPE --arm ARM --out DIR"
"""What becomes of a job that needs more than one machine; said wherever one is refused."""


@dataclass(frozen=True)
class World:
    """The ranks of one job.

    rank: of this process, from 0.
    size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that writes and tells."""
        return self.rank == 0

    def gather(self, value: Item) -> list[Item]:
        """What every rank gives, rank by rank; all ranks call it, and all get all of it.

        value: picklable; tensors on the CPU.
        """
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        given: list[Item] = [value] * self.size
        dist.all_gather_object(given, value)
        return given

    def of_first(self, value: Item) -> Item:
        """What rank 0 gives; all ranks call it.

        value: picklable; looked at on rank 0 alone.
        """
        if self.size == 1:
            return value
        import torch.distributed as dist

        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def done_by_first(self, work: Callable[[], Item]) -> Item:
        """What `work` returns on rank 0, which alone does it; all ranks call it.

        work: returns what is picklable. A UserError of it is raised on every rank.
        """
        done: Item | None = None
        error: UserError | None = None
        if self.is_first:
            try:
                done = work()
            except UserError as raised:
                error = raised
        done, error = self.of_first((done, error))
        if error:
            raise error
        return done  # type: ignore[return-value]

    def done_by_all(self, work: Callable[[], None]) -> None:
        """Have every rank do its part; all ranks call it. A UserError of any is raised on every rank."""
        error: UserError | None = None
        try:
            work()
        except UserError as raised:
            error = raised
        for of_rank in self.gather(error):
            if of_rank:
                raise of_rank

    def wait(self) -> None:
        """Return once every rank has called it."""
        self.gather(None)


ALONE = World()


def is_rank() -> bool:
    """Whether this process was started as one of several ranks, by tiltlab or by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world that the environment tells of (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, as torchrun sets them).

    device: of this rank: "cpu", or "cuda:N" of its own.

    ALONE where there is one rank. Ranks leave it together, when the block ends.
    """
    if not is_rank():
        yield ALONE
        return
    import torch
    import torch.distributed as dist

    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    for name in [name for name in os.environ if name in TOLD or name.startswith("TORCHELASTIC_")]:
        del os.environ[name]  # or an engine that is started here would take itself for a rank of this world
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
