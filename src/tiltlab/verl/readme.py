"""What stands beside an export: the command, and how its results come back."""

import shlex

from tiltlab.models.loading import EMBEDDED
from tiltlab.verl.keys import NAME, PLUGIN, VERSION
from tiltlab.verl.settings import Wanted, model_path


def run_script(wanted: Wanted) -> str:
    """run.sh: the command that trains."""
    return f"""#!/bin/sh
# {_headline(wanted)}
# With more than one node, start Ray on each of them first (README.txt). What is given besides is verl's own:
# sh run.sh trainer.max_actor_ckpt_to_keep=2
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
export VERL_USE_EXTERNAL_MODULES={PLUGIN}
exec python -m verl.trainer.main_ppo --config-dir "$here" --config-name {NAME} "tiltlab.folder='$here'" "$@"
"""


def readme(wanted: Wanted) -> str:
    """README.txt: what is needed, how to start, and how to read what comes of it."""
    task = f"--task {shlex.quote(wanted.task)}"
    base = EMBEDDED if wanted.recipe.model.path == EMBEDDED else model_path(wanted.recipe)
    ray = ["", *_RAY.format(nodes=wanted.nodes).splitlines()] if wanted.nodes > 1 else []
    lines = [
        f"{_headline(wanted)}.",
        "",
        "On every node, in one environment:",
        f'    pip install "tiltlab[verl]" "verl[vllm]=={VERSION}"',
        "Every node must see this folder under one path. Checkpoints, rollouts and validation come to lie in it.",
        *ray,
        "",
        "Then, on one node:",
        "    sh run.sh",
        "Stopped, the same command goes on from the last checkpoint. Each holds the optimiser's state too: to keep",
        "the last two alone, add trainer.max_actor_ckpt_to_keep=2 (the best may then be gone).",
        "",
        "What it says of itself, read by tiltlab (step 0 is the base, validation problems):",
        f"    tiltlab verdict --base validation --tuned validation {task}",
        f"    tiltlab evaluate --responses validation {task} --out records",
        "",
        "To report on test sets, draw from the step that is chosen and from the base, as for any other model:",
        "    python -m verl.model_merger merge --backend fsdp --target_dir merged \\",
        "        --local_dir checkpoints/global_step_N/actor",
        f"    tiltlab verdict --base {shlex.quote(base)} --tuned merged {task}",
        "",
        "The objective stands in tiltlab.yaml under `tiltlab`. Settings that would make another one of it are refused.",
    ]
    return "\n".join(lines) + "\n"


_RAY = """Ray, on the first of {nodes} nodes, and then on each of the others:
    ray start --head --port 6379
    ray start --address FIRST:6379"""


def _headline(wanted: Wanted) -> str:
    recipe, machines = wanted.recipe, f"{wanted.nodes} x {wanted.gpus} GPUs"
    return (
        f"{recipe.name}: {wanted.arm.name}, seed {wanted.seed}, {recipe.train.steps} steps of {recipe.train.prompts} x "
        f"{recipe.train.responses} responses, by verl {VERSION} on {machines}"
    )
