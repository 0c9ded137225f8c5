"""Python programs of our own, each with a pipe to this process, that end when it ends.

Not multiprocessing's processes: those import the caller's __main__ again, so that a script without a main guard would
run once more in each, and one from standard input, a notebook or a daemonic process could have none. A program is a new
interpreter that calls one function of an importable module, and knows nothing of the caller but its sys.path.

The pipe is shared with nobody: not with another program, nor with what either side forks.

Left out on purpose: security (what is sent is unpickled, by both sides), and what the pipe is used for.
"""

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Any, TypeVarTuple
from weakref import WeakSet

from tiltlab.errors import UserError
from tiltlab.system.signals import ASKING_TO_END

Arguments = TypeVarTuple("Arguments")

PATIENCE = 60
"""Seconds that one side may take over a message that it has begun to read or to write."""

_RUN = "import sys; fd, *sys.path[:] = sys.argv[1:]; from tiltlab.system.program import run; run(int(fd))"


class Program:
    """A running program, which calls main(parent, *arguments).

    main: must be importable by name.
    arguments: must be picklable.
    path: folders where it looks for modules before those of this process's sys.path.

    Its `pipe` is this process's end: it has a message of the program's, or the end of the file once that has ended.

    Raises UserError where no program can be started.
    """

    def __init__(
        self, main: "Callable[[Parent, *Arguments], None]", *arguments: *Arguments, path: Sequence[str] = ()
    ) -> None:
        ours, theirs = socket.socketpair()
        for limit in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, limit, struct.pack("ll", PATIENCE, 0))
        self.pipe: Connection[bytes, bytes] = Connection(ours.detach())
        _pipes.add(self.pipe)
        fd = theirs.fileno()
        command = [sys.executable, "-c", _RUN, str(fd), *path, *sys.path]
        with theirs, _signals_wait():
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[fd])
            except OSError as error:
                self.pipe.close()
                raise UserError(f"no worker process can be started: {error}") from error
        self._kill = Finalize(self, _killed, (self._process, self.pipe), exitpriority=10)
        with suppress(OSError):  # it has died already, as who waits for its answer will see
            self.pipe.send_bytes(pickle.dumps((main, arguments)))

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def kill(self, patience: float = 0.0) -> int:
        """End the program, and return its exit code: its own, where it ends by itself in time.

        patience: seconds that it may take to.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._kill()
        return self._process.wait()


def how_ended(code: int) -> str:
    """What became of a program that was not to end yet, by its exit code (`Program.kill`)."""
    return "was killed (for want of memory?)" if code < 0 else f"ended by itself (exit code {code})"


def _killed(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    process.kill()
    process.wait()
    pipe.close()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What is started here is deaf to Ctrl-C and its like, which reach a whole group of processes, until it says how it
    takes them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_pipes: WeakSet[Connection] = WeakSet()
"""All ends that this process holds: a forked child closes its copies, or a program would not see this process end."""


def _close_pipes() -> None:
    for pipe in list(_pipes):
        pipe.close()


os.register_at_fork(after_in_child=_close_pipes)


# In the program


class Parent:
    """The process that started this program, which ends with it, in the midst of whatever it does.

    fd: the file descriptor of this program's end of the pipe.
    """

    def __init__(self, fd: int) -> None:
        self._pid = os.getpid()
        self._pipe: Connection[bytes, bytes] = Connection(fd)
        _pipes.add(self._pipe)
        self._messages: SimpleQueue[bytes] = SimpleQueue()
        self._sending = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: bytes) -> None:
        """Send a message to the parent.

        Does not return in a forked child, which would answer a second time, nor where the parent has ended.
        """
        if os.getpid() != self._pid:
            os._exit(0)
        try:
            with self._sending:
                self._pipe.send_bytes(message)
        except OSError:
            os._exit(1)

    def receive(self) -> bytes:
        """The next message of the parent, waited for."""
        return self._messages.get()

    def has_sent(self) -> bool:
        """Whether there is something to receive."""
        return not self._messages.empty()

    def _read(self) -> None:
        while True:
            try:
                self._messages.put(self._pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(1)


def run(fd: int) -> None:
    """All that a program does: receive a function and its arguments, and call it.

    fd: the file descriptor of its end of the pipe.

    The signals that ask to end are for the parent to answer.
    """
    del sys.argv[1:]
    os.set_inheritable(fd, False)
    for number in ASKING_TO_END:
        signal.signal(number, _heedless)  # not SIG_IGN, which the programs that a user's function starts would inherit
    os.register_at_fork(after_in_child=_heed_signals)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING_TO_END)
    parent = Parent(fd)
    main, arguments = pickle.loads(parent.receive())  # of the parent's making
    main(parent, *arguments)


def _heedless(*_: Any) -> None:
    pass


def _heed_signals() -> None:
    for number in ASKING_TO_END:
        if signal.getsignal(number) is _heedless:
            signal.signal(number, signal.SIG_DFL)
