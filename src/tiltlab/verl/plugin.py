"""tiltlab's objective in verl 0.9.1. The only file that imports verl.

    VERL_USE_EXTERNAL_MODULES=tiltlab.verl.plugin python -m verl.trainer.main_ppo --config-name tiltlab ...

verl brings log pi of the trainer's own forward (old_log_probs), log p of the reference (ref_log_prob), importance
weights over whole responses, and one update a batch. What is added, by three of its registries; nothing is patched:

- an advantage: leave-one-out over the group on the whole response's score;
- a trainer: puts the objective's terms where verl keeps rewards, and NaN where a response does not count;
- a reward manager: says beside the grade whether a response came to its end, and of which tokens it is made.

Left out on purpose: the formula (objective.py), the baseline (advantage.py), and grading (reward.py).

Importing this raises UserError, in one line, where verl is another release or a hook is not what it was: verl swallows
errors of plug-ins that come as entry points, but not of those that the variable names.
"""

import inspect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from tiltlab.errors import UserError, said
from tiltlab.objective import EntropyMinimization, Objective
from tiltlab.records.verl import OURS
from tiltlab.training.advantage import leave_one_out
from tiltlab.verl.keys import NAME, ON_POLICY, VERSION

try:
    import transfer_queue as tq
    from omegaconf import DictConfig, OmegaConf, open_dict
    from tensordict import TensorDict
    from verl.experimental.reward_loop.reward_manager import register as register_reward_manager
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
    from verl.trainer.ppo.core_algos import register_adv_est
    from verl.trainer.ppo.v1.trainer_base import register_trainer
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
except ImportError as error:
    raise UserError(
        f"tiltlab.verl.plugin cannot be loaded into verl ({said(error)}): it is written for verl {VERSION} with "
        f'TransferQueue; pip install "tiltlab[verl]"'
    ) from error

V1 = "verl.trainer.ppo.v1"
HOOKS: Mapping[str, tuple[str, ...]] = {
    f"{V1}.trainer_sync:PPOTrainerSync.__init__": ("self", "config"),
    f"{V1}.trainer_sync:PPOTrainerSync._compute_advantage": ("self", "batch", "metrics"),
    f"{V1}.trainer_sync:PPOTrainerSync._dump_generations": (
        "self", "inputs", "outputs", "gts", "scores", "reward_extra_infos_dict", "dump_path",
    ),
    f"{V1}.trainer_base:register_trainer": ("name",),
    "verl.trainer.ppo.core_algos:register_adv_est": ("name_or_enum",),
    "verl.experimental.reward_loop.reward_manager:register": ("name",),
    "verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager.run_single": ("self", "data"),
    "transfer_queue:kv_batch_get": ("keys", "partition_id", "select_fields"),
    "transfer_queue:kv_batch_put": ("keys", "partition_id", "fields", "tags"),
}  # fmt: skip
"""What is overridden or called, and with which parameters."""

AGAIN = f"; install verl {VERSION} as it was released"


def require_hooks() -> None:
    """Raise UserError where verl is of another release, or has changed what this file hooks into."""
    found = version("verl")
    if found != VERSION:
        raise UserError(
            f"tiltlab.verl.plugin is written for verl {VERSION}, and verl {found} is installed: its objective could be "
            f"silently another one there; pip install verl=={VERSION}"
        )
    for path, wanted in HOOKS.items():
        try:
            given = tuple(inspect.signature(resolve_name(path)).parameters)
        except (ImportError, AttributeError) as error:
            raise UserError(f"verl has no {path} ({said(error)}), which tiltlab.verl.plugin needs{AGAIN}") from error
        if given[: len(wanted)] != wanted:
            raise UserError(
                f"{path} takes ({', '.join(given)}), and tiltlab.verl.plugin was written for "
                f"({', '.join(wanted)}){AGAIN}"
            )


require_hooks()


@register_adv_est(NAME)  # type: ignore[untyped-decorator]
def whole_response(
    token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[str], **_: Any
) -> tuple[Tensor, Tensor]:
    """Leave-one-out over the group on the score of the whole response; one number for all of its tokens.

    token_level_rewards: [N, T], whose sum over a row is the response's score; NaN where it does not count.
    response_mask: [N, T].
    index: [N], which prompt each response is to; in any order.

    Returns advantages, float32 [N, T], and the same again for what verl calls returns.

    Raises ValueError for groups of unequal size.
    """
    groups = defaultdict(list)
    for row, prompt in enumerate(index):
        groups[str(prompt)].append(row)
    sizes = sorted({len(rows) for rows in groups.values()})
    if len(sizes) > 1:
        raise ValueError(
            f"prompts have from {sizes[0]} to {sizes[-1]} responses, and tiltlab's baseline needs as many of each: "
            "verl lost some, or filled the batch up (its log says why); start again from the last checkpoint"
        )
    rows_PG = torch.tensor(list(groups.values()))
    advantages_N = torch.empty(len(index), dtype=torch.float64)
    advantages_N[rows_PG] = leave_one_out(token_level_rewards.double().sum(-1)[rows_PG])
    advantages_NT = advantages_N.float()[:, None] * response_mask
    return advantages_NT, advantages_NT


@register_trainer(NAME)
class Trainer(PPOTrainerSync):  # type: ignore[misc]
    """verl's synchronous trainer, on tiltlab's objective."""

    def __init__(self, config: DictConfig) -> None:
        require_on_policy(config)
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"  # found by our name, run in its mode
        super().__init__(config)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's own, on the score's tokens in the rewards' place, which are what the task said again afterwards."""
        fields = ["rm_scores", "old_log_probs", "ref_log_prob", "responses"]
        data = _rows(batch.keys, batch.partition_id, fields)
        ends, keep = self._ends(), self.config.tiltlab.truncated == "keep"
        complete_N = [int(response[-1]) in ends for response in data["responses"]]
        scores_N = self._scores(data)
        counted_N = [
            score if complete or keep else torch.full_like(score, torch.nan)
            for score, complete in zip(scores_N, complete_N, strict=True)
        ]
        metrics["tiltlab/truncated"] = 1 - sum(complete_N) / len(complete_N)
        metrics["tiltlab/ungraded"] = sum(bool(reward.isnan().any()) for reward in data["rm_scores"]) / len(complete_N)
        _put(batch, rm_scores=counted_N)
        try:
            return super()._compute_advantage(batch, metrics)
        finally:  # for its figures and dumps, where a response that does not count would leave nothing but NaN
            _put(batch, rm_scores=data["rm_scores"], token_level_rewards=[score.float() for score in scores_N])

    def _scores(self, data: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        """The score of each response as a sum over its tokens, float64 [N][T]: every term of R is such a sum, the
        reward having its whole on one token.

        Raises FloatingPointError where log pi or log p has overflowed: times verl's 0 it would be NaN, and pass for a
        response that does not count.
        """
        weights = self.config.tiltlab.objective
        kind = EntropyMinimization if weights.kl < 0 else Objective
        objective = kind(weights.reward, weights.sharpen, weights.kl, weights.length)
        if not all(row.isfinite().all() for row in (*data["ref_log_prob"], *data["old_log_probs"])):
            raise FloatingPointError(
                "log pi or log p of a response is not finite; lower lr, or look at the dumps so far"
            )
        return [
            objective.score(reward.double(), ref.double(), policy.double(), len(policy))
            for reward, ref, policy in zip(data["rm_scores"], data["ref_log_prob"], data["old_log_probs"], strict=True)
        ]

    def _ends(self) -> frozenset[int]:
        return frozenset(self.config.tiltlab.end_ids)

    def _dump_generations(
        self,
        inputs: list[str],
        outputs: list[str],
        gts: list[Any],
        scores: list[float],
        reward_extra_infos_dict: dict[str, list[Any]],
        dump_path: str,
    ) -> None:
        """verl's own; dumps of training also say which problem, whether it ended, how long it is, and log p."""
        if dump_path == self.config.trainer.get("rollout_data_dir"):
            reward_extra_infos_dict = reward_extra_infos_dict | self._known(reward_extra_infos_dict["uid"])
        super()._dump_generations(inputs, outputs, gts, scores, reward_extra_infos_dict, dump_path)

    def _known(self, keys: Sequence[str]) -> dict[str, list[Any]]:
        data, ends = _rows(keys, "train", ["responses", "old_log_probs", "ref_log_prob", "extra_info"]), self._ends()
        return {
            "grader": [OURS] * len(keys),
            "problem": [about["id"] for about in data["extra_info"]],
            "complete": [int(response[-1]) in ends for response in data["responses"]],
            "tokens": [len(response) for response in data["responses"]],
            "logp": [float(row.double().sum()) for row in data["old_log_probs"]],
            "ref_logp": [float(row.double().sum()) for row in data["ref_log_prob"]],
        }


@register_reward_manager(NAME)
class RewardManager(NaiveRewardManager):  # type: ignore[misc]
    """verl's own; beside the grade it says whether a response came to its end, and which tokens were drawn."""

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Grade one response."""
        result: dict[str, Any] = await super().run_single(data)
        row = data[-1:].batch
        length = row["responses"].shape[-1]
        ids = row["responses"][0][row["attention_mask"][0][-length:].bool()].tolist()
        told = {"complete": ids[-1] in self.config.tiltlab.end_ids, "tokens": len(ids), "ids": " ".join(map(str, ids))}
        result["reward_extra_info"] = result["reward_extra_info"] | told
        return result


def require_on_policy(config: DictConfig) -> None:
    """Raise UserError where a setting would have verl optimise something else than the objective."""
    for key, wanted in ON_POLICY.items():
        named = wanted[2:-1] if isinstance(wanted, str) and wanted.startswith("${") else None
        value = OmegaConf.select(config, named) if named else wanted
        found = OmegaConf.select(config, key)
        if found != value:
            raise UserError(
                f"{key} is {found}, and tiltlab's objective needs {value}: with anything else verl would optimise "
                "something else; leave it as `tiltlab export verl` wrote it"
            )


def _rows(keys: Sequence[str], partition: str, fields: list[str]) -> dict[str, list[Any]]:
    """What the transfer queue holds of some responses, a value each."""
    data = tq.kv_batch_get(keys=keys, partition_id=partition, select_fields=fields)
    missing = [field for field in fields if field not in data.keys()]  # noqa: SIM118 (it is no mapping)
    if missing:
        raise UserError(f"verl's transfer queue has no {', '.join(missing)}; tiltlab's objective needs it")
    return {name: list(data[name].unbind() if isinstance(data[name], Tensor) else data[name]) for name in fields}


def _put(batch: Any, **fields: Iterable[Tensor]) -> None:
    nested = {name: torch.nested.as_nested_tensor(list(rows), layout=torch.jagged) for name, rows in fields.items()}
    tq.kv_batch_put(
        keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(nested, batch_size=len(batch.keys))
    )
