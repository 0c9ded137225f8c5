"""CUDA graphs: a piece of work is recorded once and replayed, which spares a GPU from waiting for Python.

A replay reads and writes the memory that was there while recording. So all that a step reads or writes must stay where
it is, weights included, and whatever else it depends on must be in its key.

No GPU has run this yet.
"""

from collections.abc import Callable, Hashable

import torch


class Graphs:
    """One graph a key, recorded the first time that it is asked for. All share one pool for what is made on the way.

    device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Do `step` once.

        key: of all that the step depends on beside what lies in memory.
        step: writes only into memory that stays, and never waits for the device.

        Raises RuntimeError for a step that cannot be recorded.
        """
        if key in self._graphs:
            self._graphs[key].replay()
            return
        with torch.cuda.device(self._device):
            self._by_hand(step)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                step()
        self._graphs[key] = graph

    def _by_hand(self, step: Callable[[], None]) -> None:
        # This does the work; recording does none. It also warms up what may not be set up while recording, on a stream
        # of its own as torch asks for.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
