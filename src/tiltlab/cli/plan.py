"""`tiltlab plan`: what a study would take, before anything is spent."""

from shlex import quote
from typing import Annotated

import typer

from tiltlab.cli.output import AsJson, Output, print_note
from tiltlab.errors import UserError
from tiltlab.plan.shapes import NODE


def plan(
    recipe: Annotated[str | None, typer.Argument(help="A YAML recipe; the embedded default where left out.")] = None,
    gpu: Annotated[
        str | None, typer.Option(help='h100, h200, a100-80, l40s, 4090, or "24 GB"; this machine where left out.')
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    node: Annotated[int, typer.Option("--gpus-per-node", min=1, help="How many of them one node holds.")] = NODE,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from the recipe's first.")] = 1,
    config: Annotated[
        str | None, typer.Option(help="A config.json, or its folder, to take the model's sizes from.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key of the recipe: train.steps=5")] = None,
    as_json: AsJson = False,
) -> None:
    """Memory by part, what fits and what would make it fit, FLOPs, hours and disk: from the model's config alone.

    Exit code 2, with the remedy in one line, for what does not fit.
    """
    from tiltlab.config.recipe import load_recipe
    from tiltlab.plan.cards import card, this_machine
    from tiltlab.plan.plan import plan_study
    from tiltlab.report.plan import print_plan
    from tiltlab.system.devices import usable_devices

    output, asked = Output(as_json), load_recipe(recipe, set_ or (), print_note)
    device = card(gpu) if gpu else this_machine(usable_devices(asked.model.device)[0])
    planned = plan_study(asked, device, gpus=gpus, node=node, seeds=seeds, config=config)
    print_plan(planned, output.console)
    if gpus > node:
        output.say(_over_nodes(gpus, node, recipe, [arm.name for arm in asked.arms if arm.objective()]))
    output.figures(
        planned, fits=planned.fits, rollout_bytes=planned.rollout.total(), update_bytes=planned.update.total()
    )
    if planned.refusal:
        raise UserError(planned.refusal)


def _over_nodes(gpus: int, node: int, recipe: str | None, trained: list[str]) -> str:
    """What there is for one job on more GPUs than a node has."""
    arm = quote(trained[0]) if trained else "ARM"
    nodes = f"--nodes {-(-gpus // node)}" + (f" --gpus {node}" if node != NODE else "")
    command = f"tiltlab export verl {quote(recipe or 'RECIPE')} --arm {arm} {nodes} --out DIR"
    return f"a job stays on one node ({node} GPUs); one over all {gpus} is for verl: `{command}`"
