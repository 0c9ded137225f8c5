"""An object in a program of its own: it answers, says what went wrong, and goes when it is told to."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import runs
from tiltlab.system.remote import Ended, Refused, Remote


class Counter:
    def __init__(self, start: int) -> None:
        self.count = start

    def add(self, by: int) -> int:
        self.count += by
        return self.count

    def fail(self, text: str) -> None:
        raise ValueError(text)

    def say(self, text: str) -> None:
        print(text)
        sys.stdout.flush()

    def end(self, code: int) -> None:
        os._exit(code)


class Unmade:
    def __init__(self) -> None:
        raise MemoryError


def test_calls_are_answered_one_after_another_and_errors_end_nothing(tmp_path: Path) -> None:
    remote = Remote(Counter, 5, log=tmp_path / "log")
    try:
        assert remote.call("add", 2) == 7
        with pytest.raises(Refused, match="^no such thing$"):
            remote.call("fail", "no such\nthing")
        with pytest.raises(Refused, match="^ValueError"):
            remote.call("fail", "")
        assert remote.call("add", 3) == 10
    finally:
        remote.kill()
    assert not runs(remote.pid)


def test_what_cannot_be_made_is_an_error_of_the_first_call(tmp_path: Path) -> None:
    remote = Remote(Unmade, log=tmp_path / "log")
    with pytest.raises(Refused, match="MemoryError"):
        remote.call("add", 2)
    remote.kill()


def test_a_program_that_ended_says_how_and_its_last_words(tmp_path: Path) -> None:
    remote = Remote(Counter, 5, log=tmp_path / "log")
    remote.call("say", "out of room\n\na warning of something")
    with pytest.raises(Ended, match=r"^ended \(exit code 7\) \(out of room\)$"):
        remote.call("end", 7)
    with pytest.raises(Ended, match="exit code 7"):
        remote.call("add", 1)
    remote.kill()


def test_a_program_that_was_killed_says_by_what(tmp_path: Path) -> None:
    remote = Remote(Counter, 5, log=tmp_path / "log")
    remote.call("say", "something else")
    os.kill(remote.pid, signal.SIGKILL)
    with pytest.raises(Ended, match=r"^was killed \(signal 9\)$"):
        remote.call("add", 1)
    remote.kill()


def test_a_call_that_was_interrupted_leaves_no_answer_to_the_next(tmp_path: Path, monkeypatch) -> None:
    remote = Remote(Counter, 5, log=tmp_path / "log")

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tiltlab.system.remote.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            remote.call("add", 1)
    assert not runs(remote.pid)
    with pytest.raises(Ended):
        remote.call("add", 1)


def test_nothing_that_it_prints_is_among_the_output(capfd: pytest.CaptureFixture[str]) -> None:
    remote = Remote(Counter, 5, log=None)
    remote.call("say", "told to whom it may concern")
    remote.kill()
    assert capfd.readouterr() == ("", "told to whom it may concern\n")
