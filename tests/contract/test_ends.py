"""However it ends: nothing is left running, nothing is left in shared memory, and a run goes on where it was."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.shapes import A_TOKEN, PROMPTS, TASK, drawn_by_vllm, mismatch, needs_vllm, policy, shared_folders
from tests.processes import ROOT, python, runs, wait_until
from tiltlab.engines.vllm import VLLM
from tiltlab.errors import UserError
from tiltlab.models.engine import Split, requests
from tiltlab.models.hf import HFModel
from tiltlab.objective import tempered
from tiltlab.system import shared_folder
from tiltlab.training.optimizer import Optimizer, OptimizerConfig
from tiltlab.training.train import TrainConfig, train

pytestmark = needs_vllm


def killed_while(engine: VLLM, act: Callable[[], object], delay: float = 0.0) -> str:
    """What is said of an engine that is killed in the midst of an act."""
    killer = threading.Timer(delay, os.kill, (engine.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(UserError) as error:
        act()
    killer.join()
    assert len(error.value.lines) == 1
    assert not runs(engine.pid)
    return str(error.value)


def test_killed_while_it_draws_it_says_so_in_one_line() -> None:
    before = shared_folders()
    with drawn_by_vllm(policy()) as both:
        assert mismatch(both) < A_TOKEN
        rows = requests([both.encode(prompt) for prompt in PROMPTS], 200, 150, 0)
        said = killed_while(both.engine, lambda: both.draw(rows, 1.0, ignore_eos=True), delay=0.5)  # type: ignore[arg-type]
        assert "vLLM was killed (signal 9) while it drew" in said
        assert "give the same command again to go on" in said
        with pytest.raises(UserError, match="vLLM was killed"):  # and again, for whoever asks again
            both.draw(rows, 1.0, ignore_eos=True)
    assert shared_folders() == before


def test_killed_while_weights_travel_it_says_so_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shared_folders()
    trained = policy()
    with drawn_by_vllm(trained) as both:
        engine = both.engine
        assert isinstance(engine, VLLM)
        sent: list[int] = []

        def weights():
            for name, weight in trained.weights():
                sent.append(1)
                if len(sent) == 5:
                    os.kill(engine.pid, signal.SIGKILL)
                yield name, weight

        with pytest.raises(UserError, match=r"vLLM was killed \(signal 9\) while it took weights"):
            engine.update(weights, 3)
        assert engine.version == -1  # neither the old weights nor the new
        assert not list(engine._folder.path.glob("*.safetensors"))
    assert shared_folders() == before


def test_a_run_whose_engine_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same steps as without the kill, from the weights and the optimiser's state that were saved."""
    config = TrainConfig(steps=4, prompts=4, responses=4, max_tokens=16, fixed_length=True)

    def begun() -> tuple[HFModel, HFModel, Optimizer]:
        trained, reference = policy("qwen3", tied=True), policy("qwen3", tied=True)
        return trained, reference, Optimizer(trained.trainable(), OptimizerConfig(lr=1e-3, warmup_steps=1))

    def steps(both: Split, reference: HFModel, optimizer: Optimizer, start: int = 0):
        return train(both, reference, TASK, tempered(2), config, optimizer, start=start)

    trained, reference, optimizer = begun()
    with drawn_by_vllm(trained) as both:
        whole = list(steps(both, reference, optimizer))
    trained, reference, optimizer = begun()
    with drawn_by_vllm(trained) as both:
        metrics = []
        with pytest.raises(UserError, match="vLLM was killed"):
            for one in steps(both, reference, optimizer):
                metrics.append(one)
                if len(metrics) == 2:
                    trained.save(tmp_path)
                    optimizer.save(tmp_path / "optimizer")
                    os.kill(both.engine.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    trained, reference, optimizer = begun()
    trained.restore(tmp_path, version=2)
    optimizer.restore(tmp_path / "optimizer")
    with drawn_by_vllm(trained) as both:
        metrics += list(steps(both, reference, optimizer, start=2))
    kept = ("step", "score", "kl", "length", "grad_norm")
    assert [{key: one[key] for key in kept} for one in metrics] == [{key: one[key] for key in kept} for one in whole]


HOLDS = """
import time
from tests.contract.shapes import mismatch, policy
from tiltlab.engines.vllm import VLLM
from tiltlab.models.engine import Split
trained = policy()
engine = VLLM(trained)
mismatch(Split(trained, engine))
print(engine.pid, engine._folder.path, flush=True)
{then}
"""

ENDS = {
    "an exception": "raise RuntimeError('anything')",
    "Ctrl-C": "time.sleep(600)",
    "SIGKILL": "time.sleep(600)",
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_outlives_the_program(how: str) -> None:
    program = subprocess.Popen(
        python(HOLDS.format(then=ENDS[how])), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    try:
        assert program.stdout
        pid, path = program.stdout.readline().split()
        if how == "Ctrl-C":
            program.send_signal(signal.SIGINT)
        if how == "SIGKILL":
            program.kill()
        program.wait(120)
        wait_until(lambda: not runs(int(pid)))
    finally:
        program.kill()
    if how == "SIGKILL":  # nobody was there to remove it: the next does
        assert Path(path).is_dir()
        shared_folder.SharedFolder().close()
    assert not Path(path).exists()


def test_one_that_cannot_start_says_why_and_leaves_nothing() -> None:
    before = shared_folders()
    trained = policy()
    trained.module.config.num_attention_heads = 3  # no model of vLLM's
    with pytest.raises(UserError) as error:
        VLLM(trained)
    assert len(error.value.lines) == 1
    assert str(error.value).startswith("vLLM: ")
    assert shared_folders() == before
