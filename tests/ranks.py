"""Functions run on several gloo ranks, in processes forked from one that has imported what they need."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tiltlab.system.world import joined

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["peft", "tests.models.tiny", "tiltlab.models.sharded", "tiltlab.training.parts", "tiltlab.study.study"]
)

PATIENCE = 600.0
"""Seconds; a hang, and not a busy machine."""


def on_ranks(size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What `function(world, *args)` returns on each of `size` ranks, rank by rank. In place of what it would have
    returned comes what it raises, or EOFError where the process died."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(size)]
    ranks = [
        _CONTEXT.Process(target=_rank, args=(rank, size, port, there, function, args), daemon=True)
        for rank, (_, there) in enumerate(pipes)
    ]
    for process, (_, there) in zip(ranks, pipes, strict=True):
        process.start()
        there.close()
    try:
        return [_received(here) for here, _ in pipes]
    finally:
        for process in ranks:
            process.kill()
            process.join()


def _received(pipe: Connection) -> Any:
    if not pipe.poll(PATIENCE):
        raise TimeoutError("a rank did not answer")
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError as died:
        return died


def _rank(rank: int, size: int, port: int, pipe: Connection, function: Callable[..., Any], args: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        with joined("cpu") as world:
            answer = function(world, *args)
    except BaseException as error:
        answer = error
    pipe.send_bytes(pickle.dumps(answer))  # by value: `send` shares the memory of tensors, and this process ends
