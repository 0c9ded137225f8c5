"""The same objective: advantages and weights that verl's own trainer makes of a batch, against tiltlab's."""

from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract_verl.shapes import REGIMES, composed, exported
from tiltlab.objective import Objective
from tiltlab.training.advantage import leave_one_out
from tiltlab.training.importance import Correction

END, OTHER = 1, 7
NEAR = 1e-5


@dataclass
class Batch:
    """What workers leave of P x G responses, by field; rows in any order.

    groups: the prompt of each row, as a number.
    """

    fields: dict[str, list[Tensor]]
    groups: list[int]

    def totals(self, name: str) -> Tensor:
        return torch.stack([row.double().sum() for row in self.fields[name]])

    def complete(self) -> Tensor:
        return torch.tensor([int(row[-1]) == END for row in self.fields["responses"]])

    def by_group(self, values_N: Tensor) -> Tensor:
        """[P, G]."""
        rows = torch.tensor(self.groups).argsort(stable=True)
        return values_N[rows].view(max(self.groups) + 1, -1)


def random_batch(seed: int, prompts: int, responses: int, longest: int = 12) -> Batch:
    """A fifth of the responses is truncated, a tenth could not be graded."""
    draw = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=draw)

    fields: dict[str, list[Tensor]] = {name: [] for name in FIELDS}
    groups = [p for p in range(prompts) for _ in range(responses)]
    groups = [groups[i] for i in torch.randperm(len(groups), generator=draw).tolist()]
    for _ in groups:
        n = int(torch.randint(1, longest, (1,), generator=draw))
        log_pi, tokens, reward = -3 * some(n), torch.full((n,), OTHER), torch.zeros(n)
        tokens[-1] = OTHER if some(1) < 0.2 else END
        reward[-1] = nan if some(1) < 0.1 else float(some(1) > 0.5)
        fields["rm_scores"].append(reward)
        fields["old_log_probs"].append(log_pi)
        fields["ref_log_prob"].append(log_pi - 0.5 * some(n) + 0.2)
        fields["rollout_log_probs"].append(log_pi + 0.3 * (some(n) - 0.5))
        fields["responses"].append(tokens)
        fields["response_mask"].append(torch.ones(n, dtype=torch.long))
    return Batch(fields, groups)


FIELDS = ("rm_scores", "old_log_probs", "ref_log_prob", "rollout_log_probs", "responses", "response_mask")


def trainer_of(folder: Path, regime: dict[str, Any], *overrides: str) -> Any:
    """verl's trainer of an export, without workers and tokenizer; it has what `_compute_advantage` uses."""
    from verl.trainer.ppo.core_algos import get_kl_controller
    from verl.trainer.ppo.v1 import get_trainer_cls

    exported(folder, regime)
    kind = get_trainer_cls("tiltlab")
    trainer = kind.__new__(kind)
    trainer.config = composed(folder, overrides)
    trainer.kl_ctrl_in_reward = get_kl_controller(trainer.config.algorithm.kl_ctrl)
    return trainer


def through(queue: Any, trainer: Any, batch: Batch) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
    """What verl's trainer makes of a batch: advantages and the like of each row, and its figures."""
    from tensordict import TensorDict
    from tensordict.tensorclass import NonTensorData, NonTensorStack

    nested = {k: torch.nested.as_nested_tensor(v, layout=torch.jagged) for k, v in batch.fields.items()}
    fields = TensorDict(nested, batch_size=len(batch.groups))
    fields["uid"] = NonTensorStack(*[NonTensorData(f"prompt-{p}") for p in batch.groups])
    keys = [f"prompt-{p}_{i}_0" for i, p in enumerate(batch.groups)]
    put = queue.kv_batch_put(keys=keys, partition_id="train", fields=fields)
    figures: dict[str, float] = {}
    try:
        trainer._compute_advantage(put, figures)
        names = ["advantages", "rollout_is_weights", "rm_scores", "token_level_rewards"]
        found = queue.kv_batch_get(keys=keys, partition_id="train", select_fields=names)
        return {name: list(found[name].unbind()) for name in names if name in found.keys()}, figures  # noqa: SIM118
    finally:
        queue.kv_clear(keys=keys, partition_id="train")


def wanted(objective: Objective, batch: Batch, *, keep: bool = False) -> Tensor:
    """[P, G]."""
    scores_N = objective.score(batch.totals("rm_scores"), batch.totals("ref_log_prob"), batch.totals("old_log_probs"))
    counted_N = torch.where(batch.complete() | keep, scores_N, nan)
    return leave_one_out(batch.by_group(counted_N))


@pytest.mark.parametrize("regime", REGIMES)
def test_advantages_are_those_of_the_objective(queue: Any, regime: str, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, REGIMES[regime])
    objective = Objective(**trainer.config.tiltlab.objective)
    left_out = 0
    for seed in range(100):
        batch = random_batch(seed, prompts=2 + seed % 3, responses=2 + seed % 5)
        found, figures = through(queue, trainer, batch)
        told = batch.by_group(torch.stack([row[0].double() for row in found["advantages"]]))
        assert (told - wanted(objective, batch)).abs().max() < NEAR
        assert all((row == row[0]).all() for row in found["advantages"])  # one number for a whole response
        assert figures["tiltlab/truncated"] == pytest.approx(1 - batch.complete().double().mean().item())
        left_out += int((~batch.complete()).sum())
    assert left_out > 100


def test_truncated_responses_count_where_a_recipe_keeps_them(queue: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, REGIMES["tilted"], "tiltlab.truncated=keep")
    batch = random_batch(0, 3, 4)
    found, _ = through(queue, trainer, batch)
    told = batch.by_group(torch.stack([row[0].double() for row in found["advantages"]]))
    objective = Objective(**trainer.config.tiltlab.objective)
    assert (told - wanted(objective, batch, keep=True)).abs().max() < NEAR
    assert (told - wanted(objective, batch)).abs().max() > 0.1


@pytest.mark.parametrize("regime", [{"arm": "entropy_minimization"}, {"arm": "tempered", "alpha": 3, "length": "mean"}])
def test_other_weights_of_the_objective_too(queue: Any, regime: dict[str, Any], tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, regime)
    batch = random_batch(1, 3, 4)
    found, _ = through(queue, trainer, batch)
    told = batch.by_group(torch.stack([row[0].double() for row in found["advantages"]]))
    tokens = torch.tensor([len(row) for row in batch.fields["responses"]])
    log_p, log_pi = batch.totals("ref_log_prob"), batch.totals("old_log_probs")
    scores_N = log_pi if regime["arm"] == "entropy_minimization" else 2 * log_p / tokens + log_p - log_pi
    assert (told - leave_one_out(batch.by_group(torch.where(batch.complete(), scores_N, nan)))).abs().max() < NEAR


def test_long_responses_keep_their_differences(queue: Any, tmp_path: Path) -> None:
    """Sums of log p of -1e4 and beyond: float32 would be off by a thousandth."""
    trainer = trainer_of(tmp_path, REGIMES["tempered"])
    batch = random_batch(2, 2, 3, longest=8000)
    found, _ = through(queue, trainer, batch)
    told = batch.by_group(torch.stack([row[0].double() for row in found["advantages"]]))
    right = wanted(Objective(**trainer.config.tiltlab.objective), batch)
    assert right.abs().max() > 1e3
    assert ((told - right).abs() <= 1e-7 * right.abs()).all()


def test_weights_are_those_of_whole_responses(queue: Any, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, REGIMES["tilted"])
    batch = random_batch(3, 4, 6)
    batch.fields["rollout_log_probs"][0] = batch.fields["old_log_probs"][0] - 1  # more than twice as likely now
    found, _ = through(queue, trainer, batch)
    for row, log_pi, log_q in zip(
        found["rollout_is_weights"], batch.fields["old_log_probs"], batch.fields["rollout_log_probs"], strict=True
    ):
        right = Correction("response", 2.0).weights((log_pi - log_q)[None, None])
        assert torch.allclose(row, right.flatten().expand_as(row), atol=1e-5)
    assert max(float(row[0]) for row in found["rollout_is_weights"]) == 2.0  # capped, and not thrown away


def test_what_the_task_said_is_kept_for_the_logs(queue: Any, tmp_path: Path) -> None:
    batch = random_batch(4, 3, 4)
    found, _ = through(queue, trainer_of(tmp_path, REGIMES["sharpening"]), batch)
    for told, given in zip(found["rm_scores"], batch.fields["rm_scores"], strict=True):
        assert torch.equal(told.nan_to_num(), given.nan_to_num())
    assert not any(row.isnan().any() for row in found["token_level_rewards"])  # averages of them stay numbers


def test_groups_of_unequal_size_are_refused(queue: Any, tmp_path: Path) -> None:
    batch = random_batch(5, 3, 4)
    short = Batch({name: rows[:-1] for name, rows in batch.fields.items()}, batch.groups[:-1])
    with pytest.raises(ValueError, match="from 3 to 4 responses"):
        through(queue, trainer_of(tmp_path, REGIMES["tilted"]), short)


def test_what_has_overflowed_passes_for_no_number(queue: Any, tmp_path: Path) -> None:
    batch = random_batch(6, 2, 3)
    batch.fields["ref_log_prob"][batch.complete().nonzero()[0].item()][0] = -torch.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        through(queue, trainer_of(tmp_path, REGIMES["tempered"]), batch)


def test_the_loss_has_the_objectives_gradient(tmp_path: Path) -> None:
    """- sum A w log pi / (P G), by the loss and the aggregation that the export names; nothing is clipped."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    exported(tmp_path, REGIMES["tilted"])
    actor = composed(tmp_path).actor_rollout_ref.actor
    config = omega_conf_to_dataclass(actor)
    draw = torch.Generator().manual_seed(0)
    log_pi = torch.randn(6, 5, generator=draw, requires_grad=True)
    old, mask = torch.randn(6, 5, generator=draw), torch.ones(6, 5)
    mask[2, 3:] = mask[4, 1:] = 0
    advantages, weights = torch.randn(6, 1, generator=draw) * mask, torch.rand(6, 1, generator=draw) * mask
    config.global_batch_info.update(dp_size=1, batch_num_tokens=None, global_batch_size=6, loss_scale_factor=None)
    loss, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=old, log_prob=log_pi, advantages=advantages, response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode, config=config, rollout_is_weights=weights,
    )  # fmt: skip
    (found,) = torch.autograd.grad(loss, log_pi)
    assert torch.allclose(found, -advantages * weights / 6)
