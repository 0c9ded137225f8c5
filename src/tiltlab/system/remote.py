"""An object in a program of its own, whose methods are called from here, one call after another.

Left out on purpose: deadlines (see guarded_calls), and several calls at once.
"""

import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from signal import SIGKILL
from typing import Any

from tiltlab.errors import brief, said
from tiltlab.system.program import Parent, Program


class Ended(Exception):
    """The program has ended. What is said is how, and its last words."""


class Refused(Exception):
    """The call raised an error. What is said is its text."""


class Remote:
    """make(*arguments) in a program of its own, made at the first call.

    make: a class or function, importable by name.
    arguments: must be picklable, as those of every call and what it returns.
    log: a file for what the program prints; None leaves that to this process's own streams, all of it to stderr.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, log: Path | None) -> None:
        self._log = log
        self._program = Program(_serve, make, arguments, str(log) if log else "")

    @property
    def pid(self) -> int:
        """The number of the program's process."""
        return self._program.pid

    def call(self, name: str, *arguments: Any) -> Any:
        """What the object's method `name` returns.

        Raises Refused where it failed, Ended where the program has ended.
        """
        pipe, asked = self._program.pipe, pickle.dumps((name, arguments))
        try:
            pipe.send_bytes(asked)
            wait([pipe])
            refused, answer = pickle.loads(pipe.recv_bytes())  # of `_serve`'s making
        except (EOFError, OSError) as error:
            code = self._program.kill(patience=1.0)
            if code == -SIGKILL:  # from outside: what it last said has nothing to do with it
                raise Ended(f"was killed (signal {-code})") from error
            how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
            raise Ended(how + self._last_words()) from error
        except BaseException:  # Ctrl-C, say: the answer would be taken for that to the next call
            self._program.kill()
            raise
        if refused:
            raise Refused(answer)
        return answer

    def kill(self) -> None:
        """End the program, in the midst of whatever it does."""
        self._program.kill()

    def _last_words(self) -> str:
        with suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log else []
            told = [line for line in lines if line.strip() and "arning" not in line]
            return f" ({brief(told[-1])})" if told else ""
        return ""


def _serve(parent: Parent, make: Callable[..., Any], arguments: tuple[Any, ...], log: str) -> None:
    _print_to(log)
    served: Any = None
    while True:
        name, given = pickle.loads(parent.receive())  # of `Remote.call`'s making
        try:
            served = make(*arguments) if served is None else served
            answer = (False, getattr(served, name)(*given))
        except Exception as error:
            answer = (True, brief(error) or said(error))
        parent.send(pickle.dumps(answer))


def _print_to(log: str) -> None:
    """Nothing goes to stdout: that is for the answers of the command that is running."""
    if not log:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return
    with Path(log).open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
