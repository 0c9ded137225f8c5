"""What is exported passes verl's own validation, by its own command."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract_verl.shapes import PAPER, REGIMES, composed, exported, paper, verl

assert verl


def require_valid(config: Any) -> None:
    """As verl's command does before it starts."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    assert need_reference_policy(config)
    validate_config(config, use_reference_policy=True, use_critic=need_critic(config))
    for section in (config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.algorithm.kl_ctrl):
        omega_conf_to_dataclass(section)


@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_is_valid(regime: str, tmp_path: Path) -> None:
    exported(tmp_path, REGIMES[regime])
    config = composed(tmp_path)
    require_valid(config)
    assert config.trainer.v1.trainer_mode == config.algorithm.adv_estimator == "tiltlab"


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("regime", REGIMES)
def test_every_regime_of_a_recipe_of_the_paper_is_valid(name: str, regime: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = exported(out, REGIMES[regime], f"recipes/paper/{name}.yaml", *paper(name, tmp_path))
    config = composed(out)
    require_valid(config)
    train = wanted.recipe.train
    sizes = config.data.train_batch_size, config.actor_rollout_ref.rollout.n, config.data.max_response_length
    assert sizes == (train.prompts, train.responses, train.max_tokens)
    assert config.trainer.total_training_steps == train.steps
    assert config.tiltlab.truncated == "keep"
    optim = config.actor_rollout_ref.actor.optim
    assert (optim.lr, optim.betas, optim.weight_decay, optim.lr_warmup_steps) == (1e-6, [0.9, 0.999], 0, 50)


class Started(Exception):
    """Raised in Ray's place."""


def test_ray_brings_the_plug_in_to_every_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever started Ray on a node, and with which environment."""
    import ray
    from verl.trainer.main_ppo import run_ppo

    def start(**given: Any) -> None:
        assert given["runtime_env"]["env_vars"]["VERL_USE_EXTERNAL_MODULES"] == "tiltlab.verl.plugin"
        raise Started

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", start)
    exported(tmp_path, REGIMES["tilted"])
    with pytest.raises(Started):
        run_ppo(composed(tmp_path), task_runner_class=None)


def test_the_command_beside_it_is_verls(tmp_path: Path) -> None:
    """run.sh, in a folder with a blank in its name; Hydra shows what it would run with."""
    out = tmp_path / "a b"
    exported(out, REGIMES["tilted"])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", str(out / "run.sh"), "trainer.max_actor_ckpt_to_keep=2", "--cfg", "job", "--resolve"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PATH": path}, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = yaml.safe_load(done.stdout[done.stdout.index("actor_rollout_ref:") :])
    assert told["data"]["train_files"] == str(out / "train.parquet")
    assert told["trainer"]["max_actor_ckpt_to_keep"] == 2
    assert told["algorithm"]["kl_ctrl"]["kl_coef"] == 0  # the objective has the KL
    assert told["tiltlab"]["objective"] == {"reward": 1, "sharpen": pytest.approx(0.45), "kl": 0.3, "length": "sum"}
