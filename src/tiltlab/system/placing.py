"""What each job gets of a cluster's machines: GPUs of its own, or some CPUs where there are none.

Left out on purpose: which machine it runs on (whoever hands them out), and what the machines have in common (nodes.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltlab.errors import UserError
from tiltlab.system.world import ON_VERL

A_MACHINE = 2
"""Jobs side by side on the CPUs of a machine, where nobody says how many: as on one machine."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    id: by which the cluster knows it.
    name: by which people do; another's is not the same.
    cpus, gpus: that may be handed out there.
    """

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Share:
    """What a job gets, all of it on one node.

    gpus: of its own, one a rank; 0 where it runs on a CPU.
    cpus: of its own; 0 where it has GPUs, beside which nobody counts CPUs.
    ranks: processes that work on it.
    threads: of each rank on the CPU.
    """

    gpus: int
    cpus: int
    ranks: int
    threads: int

    @property
    def devices(self) -> list[str]:
        """As torch names them in the job, which sees no GPU but its own."""
        return [f"cuda:{number}" for number in range(self.gpus)] or ["cpu"]

    def fit(self, nodes: Sequence[Node]) -> int:
        """How many jobs some nodes hold at once."""
        return sum(node.gpus // self.gpus if self.gpus else node.cpus // self.cpus for node in nodes)


def share_of(nodes: Sequence[Node], device: str, ranks: int, jobs: int | None) -> Share:
    """What each job gets.

    nodes: of the cluster.
    device: what the recipe asks for.
    ranks: of a job; on GPUs each has one.
    jobs: that are to run side by side, None for as many as there is room for.

    Raises UserError where no node could run one.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(
            f"the recipe asks for device {device}, and on a cluster a job is given its GPUs: it is auto, cpu or cuda"
        )
    most = max((node.gpus for node in nodes), default=0)
    if device == "cuda" and not most:
        raise UserError("the recipe asks for device cuda, and no node of the cluster has a GPU to hand out")
    if most and device != "cpu":
        return _of_gpus(nodes, most, ranks)
    cpus = [node.cpus for node in nodes if node.cpus]
    if not cpus:
        raise UserError("no node of the cluster has a CPU to hand out: start Ray there with --num-cpus")
    own = min(*cpus, sum(cpus) // jobs) if jobs else min(cpus) // A_MACHINE
    return Share(0, max(1, own), ranks, max(1, own // ranks))


def _of_gpus(nodes: Sequence[Node], most: int, ranks: int) -> Share:
    if ranks > most:
        raise UserError(
            f"gpus: {ranks}, and no node of the cluster has more than {most} to hand out; a job that needs more "
            f"machines than one {ON_VERL}"
        )
    threads = min(node.cpus // node.gpus for node in nodes if node.gpus >= ranks)
    return Share(ranks, 0, ranks, max(1, threads))
