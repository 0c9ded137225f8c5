"""Pieces of work that tests hand to ranks, which import this module: so it brings nothing heavy."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.processes import wait_until, write
from tiltlab.errors import Stopped, UserError
from tiltlab.system.ranks import run_on_ranks
from tiltlab.system.torchrun import Standing
from tiltlab.system.world import World

Tell = Callable[..., None]
Stopping = Callable[[], bool]


def nothing_first(device: str) -> None: ...


def run(piece: Callable[..., None], size: int = 2, stopping: Stopping = lambda: False) -> list[tuple[object, ...]]:
    told: list[tuple[object, ...]] = []
    devices = [f"cpu:{rank}" for rank in range(size)]
    run_on_ranks(piece, devices=devices, begin=nothing_first, tell=lambda *news: told.append(news), stopping=stopping)
    return told


def tells(folder: Path, *, world: World, tell: Tell, stopping: Stopping, device: str) -> None:
    """Each its device, what it knows of the others, and what a process that it starts would find."""
    _here(folder, world)
    told = [name for name in ("RANK", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE") if name in os.environ]
    tell(world.size, world.gather(device), told)


def saves_when_asked(folder: Path, *, world: World, tell: Tell, stopping: Stopping, device: str) -> None:
    _here(folder, world)
    while not stopping():
        time.sleep(0.01)
    write(str(folder / f"saved-{world.rank}"), "")
    raise Stopped("saved")


def dies(folder: Path, *, world: World, tell: Tell, stopping: Stopping, device: str) -> None:
    _here(folder, world)
    if world.rank == 1:
        wait_until((folder / "0").exists)
        os.kill(os.getpid(), signal.SIGKILL)
    world.wait()


def raises(folder: Path, *, error: Exception, rank: int, world: World, tell: Tell, stopping: Stopping, device: str):
    _here(folder, world)
    if world.rank == rank:
        raise error
    world.wait()


def full(folder: Path, **given) -> None:
    raises(folder, error=UserError("the disk is full"), rank=0, **given)


def hangs(folder: Path, *, world: World, tell: Tell, stopping: Stopping, device: str) -> None:
    """Rank 0 in a collective, the other in a loop that no signal ends."""
    _here(folder, world)
    if world.rank == 1:
        threading.Event().wait()
    world.wait()


def _here(folder: Path, world: World) -> None:
    write(str(folder / str(world.rank)), str(os.getpid()))


# As torchrun has them


def led(world: World, folder: Path, *pieces: Callable[..., None]) -> list[object]:
    """What rank 0 is told, and the errors that it goes on after; the other ranks follow it."""
    ranks, told = Standing(world, f"cpu:{world.rank}"), list[object]()
    if not world.is_first:
        ranks.follow()
        return told
    for piece in pieces:
        try:
            ranks.run(
                partial(piece, folder),
                devices=["cpu"] * world.size,
                tell=lambda *news: told.append(news),
                stopping=(folder / "1").exists,
            )
        except (Stopped, FloatingPointError) as error:
            told.append(str(error))
    ranks.end()
    return told


def not_finite(folder: Path, **given) -> None:
    raise FloatingPointError("the gradient is not finite")
