"""The plug-in loads into verl as it was released, and into no other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract_verl.shapes import REGIMES, composed, exported, verl
from tiltlab.errors import UserError
from tiltlab.verl import plugin
from tiltlab.verl.keys import ON_POLICY, PLUGIN, VERSION


def loaded(before: str) -> str:
    """What a process says that imports verl with the plug-in named; `before` runs first."""
    command = [sys.executable, "-W", "ignore", "-c", f"{before}\nimport verl\nprint('loaded')"]
    here = os.environ | {"VERL_USE_EXTERNAL_MODULES": PLUGIN}
    done = subprocess.run(command, capture_output=True, text=True, env=here, timeout=300)
    assert done.returncode in (0, 1)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_it_registers_under_its_name() -> None:
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn
    from verl.trainer.ppo.v1 import get_trainer_cls

    assert verl.__version__ == VERSION
    assert get_trainer_cls("tiltlab") is plugin.Trainer
    assert get_adv_estimator_fn("tiltlab") is plugin.whole_response
    assert get_reward_manager_cls("tiltlab") is plugin.RewardManager


def test_another_release_of_verl_is_refused_as_it_starts() -> None:
    fake = (
        "import importlib.metadata as m; real = m.version; m.version = lambda n: '0.10.0' if n == 'verl' else real(n)"
    )
    said = loaded(fake)
    assert said.startswith(
        "tiltlab.errors.UserError: tiltlab.verl.plugin is written for verl 0.9.1, and verl 0.10.0 is"
    )


def test_a_verl_without_its_transfer_queue_is_refused_as_it_starts() -> None:
    said = loaded("import sys; sys.modules['transfer_queue.interface'] = None")
    assert said.startswith("tiltlab.errors.UserError: tiltlab.verl.plugin cannot be loaded into verl (")
    assert "tiltlab[verl]" in said


@pytest.mark.parametrize("hook", plugin.HOOKS)
def test_a_hook_that_takes_something_else_is_told(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.require_hooks()
    monkeypatch.setattr(hook.replace(":", "."), lambda odd: odd)
    with pytest.raises(UserError, match="takes \\(odd\\), and tiltlab.verl.plugin was written for") as error:
        plugin.require_hooks()
    assert len(error.value.lines) == 1
    assert hook in str(error.value)


@pytest.mark.parametrize("hook", plugin.HOOKS)
def test_a_hook_that_is_gone_is_told(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugin.HOOKS, f"{hook}_of_old", ("self",))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"verl has no {hook}_of_old"):
        plugin.require_hooks()


OTHERS = {"actor_rollout_ref.actor.ppo_mini_batch_size": 4, "algorithm.kl_penalty": "k3"}
"""A value that each setting must not have, where it is no number and no truth."""


@pytest.mark.parametrize("key", ON_POLICY)
def test_a_setting_that_makes_another_objective_is_refused(key: str, tmp_path: Path) -> None:
    exported(tmp_path, REGIMES["tilted"])
    plugin.require_on_policy(composed(tmp_path))
    wanted = ON_POLICY[key]
    other = OTHERS.get(key, "grpo" if isinstance(wanted, str) else not wanted if wanted in (True, False) else 0.5)
    with pytest.raises(UserError, match=f"{key} is .*tiltlab's objective needs"):
        plugin.require_on_policy(composed(tmp_path, [f"{key}={other}"]))


def test_the_trainer_starts_on_the_exported_settings_and_on_no_others(tmp_path: Path) -> None:
    exported(tmp_path, REGIMES["tilted"])
    trainer = plugin.Trainer(composed(tmp_path))
    assert trainer.trainer_mode == "sync"
    assert trainer.use_reference_policy
    assert not trainer.use_critic
    with pytest.raises(UserError, match="algorithm.kl_penalty is k3"):
        plugin.Trainer(composed(tmp_path, ["algorithm.kl_penalty=k3"]))
