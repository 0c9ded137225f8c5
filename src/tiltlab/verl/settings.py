"""A recipe's arm as settings of verl: what verl's own configuration does not say already.

Left out on purpose: what decides the objective (keys.py), and sizes that only speed depends on, but for those without
which a run would not fit.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from tiltlab.config.recipe import Recipe
from tiltlab.config.trained import Trained
from tiltlab.models.loading import EMBEDDED, model_source
from tiltlab.verl.carried import correction
from tiltlab.verl.keys import NAME, ON_POLICY, PLUGIN

AS_WRITTEN = "{{ messages[0]['content'] }}"
"""The chat template of the export: prompts are there as the model is to read them, templates and all."""


@dataclass(frozen=True)
class Wanted:
    """What is exported, with nothing left open.

    recipe, arm: whose budget, and which objective.
    task: the recipe's entry, as YAML.
    seed: of the order of problems, and of the engine.
    nodes, gpus: how many, and how many on each.
    prompt_tokens: of the longest prompt.
    end_ids: tokens that end a response.
    """

    recipe: Recipe
    arm: Trained
    task: str
    seed: int
    nodes: int
    gpus: int
    prompt_tokens: int
    end_ids: tuple[int, ...]


def settings(wanted: Wanted) -> dict[str, Any]:
    """All settings, by their dotted keys."""
    return {**ON_POLICY, **_trainer(wanted), **_actor(wanted), **_rollout(wanted), **_data(wanted), **_own(wanted)}


def as_yaml(flat: dict[str, Any]) -> str:
    """A configuration for Hydra, on top of verl's own."""
    tree: dict[str, Any] = {"defaults": ["ppo_trainer", "_self_"]}
    for key, value in flat.items():
        *parents, last = key.split(".")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def _own(wanted: Wanted) -> dict[str, Any]:
    objective = wanted.arm.objective()
    return {
        "tiltlab.objective": asdict(objective),
        "tiltlab.truncated": wanted.recipe.train.truncated,
        "tiltlab.end_ids": list(wanted.end_ids),
        "tiltlab.folder": "???",  # run.sh says it
        "reward.custom_reward_function.path": "pkg://tiltlab.verl.reward",
        "reward.custom_reward_function.name": "compute_score",
        "reward.custom_reward_function.reward_kwargs": {"task": wanted.task},
        "reward.reward_manager.name": NAME,
        "ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES": PLUGIN,
    }


def _trainer(wanted: Wanted) -> dict[str, Any]:
    recipe, correct = wanted.recipe, correction(wanted.recipe)
    over = {"response": "sequence", "token": "token", "nothing": None}[correct.over]
    return {
        "trainer.v1.trainer_mode": NAME,
        "trainer.project_name": recipe.name,
        "trainer.experiment_name": f"{wanted.arm.name}, seed {wanted.seed}".replace("${", "$ {"),
        "trainer.logger": ["console"],
        "trainer.nnodes": wanted.nodes,
        "trainer.n_gpus_per_node": wanted.gpus,
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": recipe.train.steps,
        "trainer.test_freq": recipe.validation.every,
        "trainer.save_freq": recipe.validation.every,
        "trainer.val_before_train": True,
        "trainer.default_local_dir": "${tiltlab.folder}/checkpoints",
        "trainer.rollout_data_dir": "${tiltlab.folder}/rollouts",
        "trainer.validation_data_dir": "${tiltlab.folder}/validation",
        "algorithm.rollout_correction.rollout_is": over,
        "algorithm.rollout_correction.rollout_is_threshold": float(correct.cap),  # a text "low_high" would drop
    }


def _actor(wanted: Wanted) -> dict[str, Any]:
    model, budget = wanted.recipe.model, wanted.recipe.train
    optimizer, actor = budget.optimizer, "actor_rollout_ref.actor"
    return {
        "actor_rollout_ref.model.path": model_path(wanted.recipe),
        "actor_rollout_ref.model.trust_remote_code": model.trust_remote_code,
        "actor_rollout_ref.model.custom_chat_template": AS_WRITTEN,
        "actor_rollout_ref.model.enable_gradient_checkpointing": model.checkpointing is not False,
        f"{actor}.optim.lr": optimizer.lr,
        f"{actor}.optim.betas": list(optimizer.betas),
        f"{actor}.optim.weight_decay": optimizer.weight_decay,
        f"{actor}.optim.lr_scheduler_type": "constant",
        f"{actor}.optim.lr_warmup_steps": optimizer.warmup_steps,
        f"{actor}.optim.clip_grad": optimizer.max_grad_norm,
        f"{actor}.fsdp_config.optimizer_offload": optimizer.state == "host",
        f"{actor}.use_dynamic_bsz": True,
        # the limit of the reference's and the engine's passes is this one, so that all three see the same batches
        f"{actor}.ppo_max_token_len_per_gpu": max(budget.micro_batch_tokens, wanted.prompt_tokens + budget.max_tokens),
    }


def _rollout(wanted: Wanted) -> dict[str, Any]:
    recipe, rollout = wanted.recipe, "actor_rollout_ref.rollout"
    return {
        f"{rollout}.name": "vllm",
        f"{rollout}.n": recipe.train.responses,
        f"{rollout}.seed": wanted.seed,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.gpu_memory_utilization": recipe.engine.share,
        f"{rollout}.val_kwargs": {
            "n": recipe.validation.n,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "do_sample": True,
        },
    }


def _data(wanted: Wanted) -> dict[str, Any]:
    return {
        "data.train_files": "${tiltlab.folder}/train.parquet",
        "data.val_files": "${tiltlab.folder}/validation.parquet",
        "data.train_batch_size": wanted.recipe.train.prompts,
        "data.shuffle": False,  # the rows are in the order in which tiltlab would draw them
        "data.seed": wanted.seed,
        "data.max_prompt_length": wanted.prompt_tokens,
        "data.max_response_length": wanted.recipe.train.max_tokens,
        "data.truncation": "error",
        "data.filter_overlong_prompts": False,
        "data.trust_remote_code": wanted.recipe.model.trust_remote_code,
    }


def model_path(recipe: Recipe) -> str:
    """The base, as verl is to name it: an id of the hub, or the whole path of a folder."""
    name, _ = model_source(recipe.model)
    folder = Path(name)
    return str(folder.resolve()) if recipe.model.path == EMBEDDED or folder.is_dir() else name
