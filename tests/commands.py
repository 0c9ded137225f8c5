"""The command line in processes of its own that begin with its imports done.

A starter, one a test session, imports what the commands import and forks; it computes nothing, and so has no threads.
What it forks is as a shell would start it: at the head of a group of processes, with an environment and output of its
own. Left out on purpose: what a fresh interpreter does first, which tests of their own look at.
"""

import atexit
import os
import pickle
import select
import socket
import subprocess
import sys
import tempfile
from functools import cache

from tests.processes import ROOT, python

STARTER = """
from tiltlab.system.memory import tune; tune()
import peft, torch._dynamo, torch.optim, transformers.models.llama.modeling_llama
import tiltlab.cli.main, tiltlab.evaluation.run, tiltlab.study.study, tiltlab.verdict.inputs
from tests.commands import serve
import gc; gc.freeze()
serve(int(sys.argv[1]))
"""


class Command:
    """A running command. first: code that runs before it. `said` is what it wrote to its standard error."""

    def __init__(self, *arguments: str, first: str = "", **environment: str) -> None:
        self.returncode: int | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._news, theirs = socket.socketpair()
        wanted = pickle.dumps((arguments, first, os.environ | environment))
        with theirs:
            socket.send_fds(_starter(), [len(wanted).to_bytes(8)], [theirs.fileno(), self._output.fileno()])
            _starter().sendall(wanted)
        self.pid = self._told()

    def _told(self) -> int:
        number = self._news.recv(8, socket.MSG_WAITALL)
        assert number, "the starter has ended"
        return int.from_bytes(number, signed=True)

    def poll(self, seconds: float = 0) -> int | None:
        """The exit code, or None where it has not ended; waits so long for it."""
        if self.returncode is None and select.select([self._news], [], [], seconds)[0]:
            self.returncode = self._told()
        return self.returncode

    def ended(self, seconds: float) -> int:
        """The exit code. Raises TimeoutError where it takes longer."""
        code = self.poll(seconds)
        if code is None:
            raise TimeoutError(self.said())
        return code

    def said(self) -> str:
        self._output.seek(0)
        return self._output.read().decode()


@cache
def _starter() -> socket.socket:
    """The way to it. It ends when this process does."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = python(STARTER, str(theirs.fileno()))
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], start_new_session=True)
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


# In the starter


def serve(way: int) -> None:
    """Returns in what it forks too, once the command there has; the interpreter then ends as after any."""
    requests, watchers = socket.socket(fileno=way), []
    while True:
        size, fds, _, _ = socket.recv_fds(requests, 8, 2)
        if not size:
            break
        wanted = pickle.loads(requests.recv(int.from_bytes(size), socket.MSG_WAITALL))  # of the tests' making
        watchers.append(os.fork())
        if not watchers[-1]:
            requests.close()
            _watch(fds[0])
            _run(fds[1], *wanted)
            return
        for fd in fds:
            os.close(fd)
    for watcher in watchers:
        os.waitpid(watcher, 0)


def _watch(news: int) -> None:
    """Returns in a process of its own, of which this one tells the number and how it ends."""
    pid = os.fork()
    if pid:
        os.write(news, pid.to_bytes(8, signed=True))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.write(news, code.to_bytes(8, signed=True))
        os._exit(0)
    os.close(news)
    os.setsid()


def _run(output: int, arguments: tuple[str, ...], first: str, environment: dict[str, str]) -> None:
    from tiltlab.cli.main import main

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["tiltlab", *arguments]
    exec(first, {})
    main()
