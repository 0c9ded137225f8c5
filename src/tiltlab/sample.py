"""Drawing graded responses with one sampler, into a folder: records.jsonl, and sample.json that says how.

Left out on purpose: going on where a run stopped. It is one evaluation; a study keeps what its arms have done.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from tiltlab.errors import UserError
from tiltlab.evaluate import evaluate
from tiltlab.models.loading import load_codec, load_reference
from tiltlab.provenance import provenance
from tiltlab.recipe import SampleRecipe
from tiltlab.rundir import write_json, write_records
from tiltlab.samplers.base import Info
from tiltlab.seeds import derive
from tiltlab.types import Record


def run_sample(
    recipe: SampleRecipe, folder: Path, device: str, on_progress: Callable[[int, int], None]
) -> tuple[list[Record], Info]:
    """Draw, grade and write. `on_progress` is told how many problems are done, out of how many.

    Raises UserError for a model or a problem that cannot be used, and for a folder that cannot be written.
    """
    problems = recipe.task.problems(recipe.split)[: recipe.problems]
    if not problems:
        raise UserError(f"task {recipe.task.name} has no problem in its {recipe.split} split")
    config = replace(recipe.model, device=device)
    codec = load_codec(config)
    for problem in problems:
        codec.encode(recipe.task.render(problem), recipe.max_tokens)
    model = load_reference(config, codec)
    records, info = evaluate(
        model,
        model,
        recipe.sampler.sampler(),
        recipe.task,
        problems,
        n=recipe.n,
        max_tokens=recipe.max_tokens,
        seed=derive(recipe.seed, recipe.split),
        on_progress=lambda done: on_progress(done, len(problems)),
    )
    write_records(folder / "records.jsonl", records)
    write_json(
        folder / "sample.json",
        {"recipe": recipe.model_dump(mode="json"), "info": asdict(info), "made": provenance()},
    )
    return records, info
