"""A model card (README.md, as the Hugging Face hub reads it) for each checkpoint that a study keeps.

Left out on purpose: licences and intended uses, which are the user's to state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tiltlab.report.export import Table, in_markdown, markdown
from tiltlab.report.findings import Findings
from tiltlab.report.load import Study
from tiltlab.report.outcome import called
from tiltlab.report.tables import Row
from tiltlab.storage.files import write_text
from tiltlab.storage.run_folder import JobDir
from tiltlab.system.visible import visible
from tiltlab.verdict.verdict import Verdict

_CITED = "Trained by tiltlab, after arXiv 2604.16259: one KL-regularised objective for task reward and sharpening."


def write_cards(run: Path, study: Study, rows: Sequence[Row], findings: Mapping[str, Findings]) -> None:
    """Write README.md into the checkpoint folders of all finished arms.

    run: the run folder of the study.
    rows: of the result table.
    findings: by task.
    """
    for row in (row for row in rows if row.steps):
        arm = next(arm for arm in study.on(row.task) if arm.name == row.arm)
        for seeded in arm.seeds:
            job = JobDir.of(run, row.task, row.arm, seeded.seed)
            folder = job.checkpoints.step((seeded.steps or {})[row.which])
            if folder.is_dir():
                write_text(folder / "README.md", card(study, row, arm.config, seeded.seed, rows, findings[row.task]))


def card(
    study: Study, row: Row, config: Mapping[str, object], seed: int, rows: Sequence[Row], findings: Findings
) -> str:
    """The text of one card; names and commands, which are anybody's, are escaped.

    row: of the checkpoint.
    config: the arm, as the recipe has it.
    seed: of the training.
    rows: of the result table, of which those of the base are shown beside the card's own.
    findings: of the row's task.
    """
    model, made = study.recipe["model"], study.made[-1]
    hub_id = str(model["path"]).count("/") == 1 and not Path(model["path"]).exists()
    front = {
        "library_name": "peft" if model.get("lora") else "transformers",
        **({"base_model": model["path"]} if hub_id else {}),
        "tags": ["tiltlab", "reinforcement-learning"],
    }
    base = study.base(row.task)
    shown = [r for r in rows if r.task == row.task and (r is row or (base and r.arm == base.name))]
    table = Table(
        ("model", "accuracy", f"pass@{row.k}", "length", "KL to the base"),
        [(r.arm, r.accuracy, r.pass_k, r.length.value, r.kl.value) for r in shown],
        {"length": 1, "KL to the base": 2},
        f"Test split of {row.task}, {study.recipe['test']['n']} samples a problem at temperature 1, over {study.seeds} "
        "seed(s); 95 % intervals over problems; KL in nats a response.",
    )
    verdict = findings.verdicts.get(row.arm) if row.which == "last" else None
    data = ", ".join(f"{split} {fact['sha256'][:12]}" for split, fact in study.data[row.task].items())
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    settings = {"arm": dict(config), "train": study.recipe["train"], "seed": seed}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {in_markdown(f'{row.arm}, {row.task}')}",
        f"The {row.checkpoint.replace(' = ', ' and ')} checkpoint (step {row.steps[0]}) of arm "
        f"*{in_markdown(row.arm)}* in the study "
        f"*{in_markdown(study.name)}*, trained from `{_as_code(str(model['path']))}`. {_CITED}",
        "## Results",
        markdown(table).strip(),
        *([f"Verdict: **{called(verdict)}**. {in_markdown(_told(verdict))}"] if verdict else []),
        "## How it was trained",
        "".join(f"    {line}\n" for line in yaml.safe_dump(settings, sort_keys=False).splitlines()).rstrip(),
        f"Command: `{_as_code(' '.join(made['command']))}`; {in_markdown(versions)}"
        + (f", commit {made['commit']}" if made["commit"] else "")
        + f". Problems (SHA-256): {data}.",
    ]
    return "\n\n".join(parts) + "\n"


def _told(verdict: Verdict) -> str:
    return " ".join(said for said in (verdict.why, verdict.made_of) if said)


def _as_code(text: str) -> str:
    return " ".join(visible(text).replace("`", "'").split())
