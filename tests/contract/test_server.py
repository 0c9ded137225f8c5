"""A real server, vLLM's own: what it says of its responses is what the model says, and its death costs nothing."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path

import pytest

from tests.contract.shapes import PROMPTS, needs_vllm, policy
from tests.processes import wait_until
from tiltlab.cli import main as cli
from tiltlab.evaluation import run as evaluation
from tiltlab.models.hf import HFModel
from tiltlab.models.served import ServedModel, served_model
from tiltlab.storage.records import read_records
from tiltlab.types import Rollout

pytestmark = needs_vllm

LIGHT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_COMPILE_DISABLE": "1",
}
"""A small server."""

START = 600.0
"""Seconds in which a server must have started, on a busy machine."""


@pytest.fixture(scope="module")
def model() -> HFModel:
    return policy()


@pytest.fixture(scope="module")
def folder(model: HFModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def vllm_serving(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """As a user starts it, but for its log."""
    settings = ["--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "16"]
    settings += ["--generation-config", "vllm", "--logprobs-mode", "raw_logprobs", "--host", "127.0.0.1"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*command, *settings], stdout=log, stderr=log, env=os.environ | LIGHT, start_new_session=True
        )
        try:
            wait_until(lambda: process.poll() is not None or is_up(port), START)
            assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """The server with the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tiltlab", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_server_killed_and_started_again(
    folder: Path, port: int, model: HFModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"server:http://127.0.0.1:{port}/v1#tiny"
    keys = ("--task", "lazy-sum", "-n", "4", "--limit", "6", "--max-tokens", "24")
    command = ("evaluate", "--model", path, *keys, "--out", str(tmp_path / "far"))
    with vllm_serving(folder, port) as first:
        far = ServedModel(path)
        assert far.codec.notes([]) == []  # log-probabilities at temperature 1, ends included
        groups = far.generate(PROMPTS, n=4, temperature=0.5, max_tokens=24, seed=0)
        assert far.generate(PROMPTS, n=4, temperature=0.5, max_tokens=24, seed=0) == groups
        near(far, model, groups)
        monkeypatch.setattr(evaluation, "LOT", 2)
        draw, lots = evaluation._draw_lot, list[int]()

        def killing(*given: object) -> None:
            lots.append(1)
            if len(lots) == 2:
                kill(first)
            draw(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(evaluation, "_draw_lot", killing)
        monkeypatch.setattr("tiltlab.models.server.ATTEMPTS", 2)
        served_model.cache_clear()
        assert run(monkeypatch, *command) == 2
    kept = (tmp_path / "far" / "records.jsonl").read_text()
    assert len(kept.splitlines()) == 8
    with vllm_serving(folder, port):
        monkeypatch.setattr(evaluation, "_draw_lot", draw)
        assert run(monkeypatch, *command) == 0
        assert (tmp_path / "far" / "records.jsonl").read_text().startswith(kept)
        records = read_records(tmp_path / "far" / "records.jsonl")
        assert len({(r.problem, r.sample) for r in records}) == len(records) == 24
        assert not any(isnan(r.logp) for r in records)
        assert run(monkeypatch, "forecast", "--base", str(tmp_path / "far"), "--out", str(tmp_path / "forecast")) == 0
        known = ("verdict", "--base", str(folder), "--tuned", path, *keys, "--out", str(tmp_path / "verdict"))
        assert run(monkeypatch, *known) == 0


def near(far: ServedModel, model: HFModel, groups: list[list[Rollout]]) -> None:
    """What the server says of responses is what the model says of the same text."""
    scored = 0
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for rollout in group:
            ids = model.codec.tokenizer(rollout.text, add_special_tokens=False)["input_ids"]
            ids += list(model.codec.end_ids[:1]) if rollout.complete else []
            if len(ids) != len(rollout.tokens):
                continue  # drawn as other tokens than its text makes
            [own] = model.rollouts([(ids, [0.0] * len(ids))])
            logp = model.logprobs([prompt], [[own]]).total_PG.item()
            assert sum(rollout.logprobs) == pytest.approx(logp, abs=1e-3)
            scored += 1
    assert scored > len(PROMPTS)
