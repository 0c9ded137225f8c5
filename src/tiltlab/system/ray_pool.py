"""Pieces of work as tasks of a Ray cluster, in place of process_pool.py's processes: all of tiltlab that knows Ray.

Three kinds of processes: this one, which never imports Ray; a program of its own that is Ray's driver (`_Driver`), as
Ray ends its driver in the midst of anything where the head is gone, and prints what it likes; and Ray's workers, each
of which does a piece (`_work`). A worker whose driver cannot be asked any longer ends at once, so that none writes
beside one that was started in its place.

Left out on purpose: clusters that grow and shrink, Ray's own retries, which tell nobody, and what the work is.
"""

import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from tiltlab.errors import Stopped, UserError, brief
from tiltlab.system.board import Board
from tiltlab.system.handing_over import Piece, outcome, pickled
from tiltlab.system.memory import tune
from tiltlab.system.nodes import require_alike
from tiltlab.system.placing import Node, Share, share_of
from tiltlab.system.process_pool import STOPPED, Begin
from tiltlab.system.remote import Ended, Refused, Remote
from tiltlab.system.retrying import GO_ON, Running
from tiltlab.system.signals import ASKING_TO_END, stopped_by_signals

Answer = TypeVar("Answer")

PATIENCE = 30.0
"""Seconds without an answer from its driver after which a worker ends itself."""

A_LOOK = 0.3
"""Seconds between two looks at what has happened."""

ANSWERING = 120.0
"""Seconds that a node may take to answer what it is asked before anything starts."""


@contextmanager
def on_ray(on: str, run: Path, *, device: str, ranks: int = 1, jobs: int | None = None) -> Iterator["RayPool"]:
    """The nodes of a Ray cluster, once they are known to be alike and to share the run folder.

    on: "ray" for the cluster of RAY_ADDRESS, the one that was started on this machine, or else a new one here; or
        "ray://HEAD:PORT", by Ray's client.
    run: the run folder, which need not be there yet.
    device: what the recipe asks for.
    ranks: of each piece; on GPUs each has one.
    jobs: pieces side by side, as many as there is room for where left out.

    Raises UserError where there is no Ray, no such cluster, no node that could do the work, and where the nodes differ
    or do not share the folder.
    """
    if on != "ray" and not on.startswith("ray://"):
        raise UserError(f"--on {on}: it is ray, or ray://HEAD:10001")
    if find_spec("ray") is None:
        raise UserError("--on takes Ray, which is not installed here: pip install 'tiltlab[ray]'")
    with tempfile.TemporaryDirectory() as folder:
        driver = Remote(_Driver, log=Path(folder) / "ray.log")
        try:
            nodes = _asked(driver, "connect", None if on == "ray" else on)
            share = share_of(nodes, device, ranks, jobs)
            working = [node for node in nodes if share.fit([node])]
            require_alike(
                [node.name for node in working], partial(_asked, driver, "everywhere", working), run.absolute()
            )
            room = share.fit(nodes)
            yield RayPool(driver, share, min(jobs or room, room), max(share.fit([node]) for node in nodes))
            with suppress(Ended, Refused):
                driver.call("close")
        finally:
            driver.kill()


def _asked(driver: Remote, *asked: Any) -> Any:
    """What the driver answers. Raises UserError where it cannot."""
    try:
        return driver.call(*asked)
    except Refused as error:
        raise UserError(str(error)) from error
    except Ended as error:
        raise UserError(f"the Ray cluster is gone (its driver {error}); {GO_ON}") from error


@dataclass(frozen=True)
class RayPool:
    """The nodes of a Ray cluster, in place of this machine and its processes.

    driver: of Ray, connected.
    share: what a piece gets.
    room: pieces that run side by side.
    on_one: pieces that share a node, at most.
    """

    driver: Remote
    share: Share
    room: int
    on_one: int

    @property
    def devices(self) -> list[str]:
        """Of each piece, as torch names them there."""
        return self.share.devices

    def threads(self, processes: int) -> int:
        """CPU threads of a rank, however many there are."""
        return self.share.threads

    def sharing(self, jobs: int, places: Sequence[str]) -> int:
        """Pieces that share a device."""
        return 1 if self.share.gpus else self.on_one

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What a question is answered where the pieces are to run. Raises what it raises.

        question: must be picklable, and made of what is importable.
        """
        told: list[Answer] = []

        def on_progress(_: int, *news: Any) -> None:
            told.extend(news if len(news) == 1 else ())

        self.run_all(
            [partial(_say, question)], jobs=1, begin=_nothing, devices=self.devices[:1], on_progress=on_progress
        )
        return told[-1]

    def run_all(
        self,
        pieces: Sequence[Piece],
        *,
        jobs: int,
        begin: Begin,
        devices: Sequence[str],
        on_progress: Callable[..., None],
    ) -> None:
        """As process_pool.run_all, but for a piece whose worker or node dies: it is begun again elsewhere, a few times,
        which is told as news of it. Raises UserError too where the cluster is gone, or no node is left."""
        with stopped_by_signals() as asked:
            started = partial(_asked, self.driver)
            started("open", pickled(pieces), pickle.dumps(begin), devices[0], self.share)
            Running(started, len(pieces), on_progress, asked).run(min(jobs, self.room))


# In the driver, a program of its own


class _Driver:
    """What is asked of Ray. Its methods are called from the process that started it, one after another."""

    def connect(self, address: str | None) -> list[Node]:
        """The nodes of a cluster. Raises UserError where there is none."""
        os.setsid()  # Ctrl-C and the end of a terminal are for others to answer: not for nodes that are started here
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "30")
        before = {number: signal.getsignal(number) for number in ASKING_TO_END}
        import ray

        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:
            at = address or os.environ.get("RAY_ADDRESS") or "this machine"
            raise UserError(f"no Ray cluster can be had at {at}: {brief(error)}") from error
        for number, handler in before.items():
            signal.signal(number, handler)  # Ray has exchanged one
        self._ray = ray
        return self._nodes()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()

    def _nodes(self) -> list[Node]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        hosts = Counter(node["NodeManagerHostname"] for node in nodes)

        def name(node: dict[str, Any]) -> str:
            host = str(node["NodeManagerHostname"])
            return host if hosts[host] == 1 else f"{host} ({node['NodeID'][:6]})"

        def whole(node: dict[str, Any], what: str) -> int:
            return int(node["Resources"].get(what, 0))

        return [Node(node["NodeID"], name(node), whole(node, "CPU"), whole(node, "GPU")) for node in nodes]

    def _on(self, node: str) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}

    def everywhere(
        self, nodes: Sequence[Node], function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]
    ) -> list[Any]:
        """What a function answers on each node, called with the arguments of its own.

        Raises UserError for a node that it cannot be called on.
        """
        remote = self._ray.remote(function)
        refs = [
            remote.options(max_retries=0, **self._on(node.id)).remote(*given)
            for node, given in zip(nodes, arguments, strict=True)
        ]
        return [self._answer(node, ref) for node, ref in zip(nodes, refs, strict=True)]

    def _answer(self, node: Node, ref: Any) -> Any:
        try:
            return self._ray.get(ref, timeout=ANSWERING)
        except Exception as error:
            why = brief(getattr(error, "cause", None) or error)
            raise UserError(f"node {node.name} cannot run this tiltlab ({why}): install the same there") from error

    def open(self, messages: Sequence[bytes], begin: bytes, device: str, share: Share) -> None:
        """Get ready for pieces of work, as they are pickled."""
        here = self._ray.get_runtime_context().get_node_id()  # the head's, by Ray's client
        self._board = self._ray.remote(Board).options(**self._on(here)).remote()
        settings = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(share.threads)}
        own = {"num_gpus": share.gpus, "num_cpus": share.cpus, "max_retries": 0}
        work: Any = self._ray.remote(_work).options(**own)
        path = [str(Path.cwd()), *sys.path]
        given = begin, device, path, settings
        self._start: Callable[[int], Any] = lambda number: work.remote(self._board, number, messages[number], *given)
        self._share = share
        self._numbers: dict[Any, int] = {}

    def start(self, number: int) -> None:
        """Begin a piece. This, `poll` and `stop` raise UserError where the cluster is gone."""
        with self._in_touch():
            self._board.expect.remote(number)
            self._numbers[self._start(number)] = number

    def poll(self) -> tuple[int, list[tuple[Any, ...]]]:
        """How many pieces the nodes that are there hold, and what has happened since: messages, as methods of Running
        take them."""
        with self._in_touch():
            if not self._numbers:
                time.sleep(A_LOOK)
            done, _ = self._ray.wait([*self._numbers], timeout=A_LOOK) if self._numbers else ((), ())
            ended = [self._end(self._numbers.pop(ref), ref) for ref in done]
            told = self._ray.get(self._board.take.remote(), timeout=ANSWERING)
            return self._share.fit(self._nodes()), [*told, *ended]

    def stop(self) -> set[int]:
        """Tell all pieces to save and stop. Returns those that were waiting for a worker, and will never begin."""
        with self._in_touch():
            begun = self._ray.get(self._board.ask_to_stop.remote(), timeout=ANSWERING)
        waiting = {ref: number for ref, number in self._numbers.items() if number not in begun}
        for ref in waiting:
            del self._numbers[ref]
        return set(waiting.values())

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        try:
            yield
        except (self._ray.exceptions.RayError, OSError) as error:  # ConnectionError is Ray's client's
            raise UserError(f"the Ray cluster is gone ({brief(error, 120)}); {GO_ON}") from error

    def _end(self, number: int, ref: Any) -> tuple[Any, ...]:
        exceptions = self._ray.exceptions
        try:
            return "ended", number, self._ray.get(ref)
        except exceptions.RayTaskError as error:
            return (
                "ended",
                number,
                pickle.dumps(("ended", UserError(f"a worker of Ray's failed: {brief(error.cause)}"))),
            )
        except exceptions.NodeDiedError:
            return "lost", number, "its node", True
        except exceptions.OutOfMemoryError:
            return "lost", number, "its worker, for want of memory,", False
        except exceptions.WorkerCrashedError:
            return "lost", number, "its worker", False


# In a worker of Ray's


def _work(
    board: Any, number: int, message: bytes, begin: bytes, device: str, path: list[str], settings: dict[str, str]
) -> bytes:
    """Do a piece of work. Returns how it ended, as `outcome` does."""
    import ray

    if not ray.get(board.begin.remote(number)):
        return pickle.dumps(("ended", Stopped(STOPPED)))
    os.environ.update(settings)
    os.environ.setdefault("TQDM_DISABLE", "1")
    with suppress(OSError):  # a folder of the driver's machine only: then nothing there is named by the recipe
        os.chdir(path[0])
    sys.path += [folder for folder in path if folder not in sys.path]
    tune()
    pickle.loads(begin)(device)  # of the driver's making
    with _Line(board, number) as line:
        return outcome(message, tell=line.tell, stopping=line.is_stopping, device=device)


class _Line:
    """A worker's way to its driver, which is asked again and again; once it does not answer, this process ends."""

    def __init__(self, board: Any, number: int) -> None:
        self._board, self._number = board, number
        self._last: Any = None
        self._stopping = False
        self._ended = threading.Event()
        self._asking = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "_Line":
        self._asking.start()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        self._ended.set()
        self._asking.join()
        if self._last is not None:
            ray.get(self._last)  # all has been told before the end is

    def tell(self, *news: Any) -> None:
        self._last = self._board.tell.remote(self._number, *news)

    def is_stopping(self) -> bool:
        return self._stopping

    def _ask(self) -> None:
        import ray

        while not self._ended.wait(0.5):
            try:
                self._stopping = ray.get(self._board.is_stopping.remote(), timeout=PATIENCE)
            except Exception:
                os._exit(1)


def _say(question: Callable[[], Any], *, tell: Callable[..., None], **_: Any) -> None:
    tell(question())


def _nothing(device: str) -> None: ...
