"""What verl calls the settings that decide which objective it optimises. Imports nothing."""

from collections.abc import Mapping
from typing import Any

VERSION = "0.9.1"
"""Of verl, that all of this is written for."""

NAME = "tiltlab"
"""Under which the plug-in registers its trainer, advantage and reward manager."""

PLUGIN = "tiltlab.verl.plugin"

ON_POLICY: Mapping[str, Any] = {
    # one update a batch, of the very policy that drew it
    "actor_rollout_ref.actor.ppo_mini_batch_size": "${data.train_batch_size}",
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "algorithm.filter_groups.enable": False,
    "trainer.critic_warmup": 0,
    # drawn from the policy itself, to its end
    "actor_rollout_ref.rollout.temperature": 1.0,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": -1,
    "actor_rollout_ref.rollout.ignore_eos": False,
    "actor_rollout_ref.rollout.multi_turn.enable": False,
    # - A w log pi, summed over a response's tokens, with A from the whole response; no clipping of ratios
    "algorithm.adv_estimator": NAME,
    "actor_rollout_ref.actor.policy_loss.loss_mode": "gpg",
    "actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum",
    "actor_rollout_ref.actor.entropy_coeff": 0,
    # w by tiltlab's rule: capped, nothing thrown away
    "actor_rollout_ref.rollout.calculate_log_probs": True,
    "algorithm.rollout_correction.bypass_mode": False,
    "algorithm.rollout_correction.rollout_is_batch_normalize": False,
    "algorithm.rollout_correction.rollout_rs": None,
    # verl loads the reference for its own KL, which counts 0 times: the objective has its own
    "algorithm.use_kl_in_reward": True,
    "algorithm.kl_penalty": "kl",
    "algorithm.kl_ctrl.type": "fixed",
    "algorithm.kl_ctrl.kl_coef": 0.0,
    "actor_rollout_ref.actor.use_kl_loss": False,
}
"""By key, what each must be. The trainer refuses to start on anything else; `${...}` is the value of another key."""
