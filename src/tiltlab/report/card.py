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
from tiltlab.report.tables import Row, at_k
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
    for row in (row for row in rows if row.steps and study.tests[row.task].leads):
        arm = next(arm for arm in study.on(row.task) if arm.name == row.arm)
        for seeded in arm.seeds:
            job = JobDir.of(run, study.tests[row.task].task, row.arm, seeded.seed)
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
    rows: of the result table, of which those of the checkpoint and of the base are shown, on every test set.
    findings: of the row's task.
    """
    model, made = study.recipe["model"], study.made[-1]
    hub_id = str(model["path"]).count("/") == 1 and not Path(model["path"]).exists()
    front = {
        "library_name": "peft" if model.get("lora") else "transformers",
        **({"base_model": model["path"]} if hub_id else {}),
        "tags": ["tiltlab", "reinforcement-learning"],
    }
    task = study.tests[row.task].task
    table = _results(study, row, rows)
    verdict = findings.verdicts.get(row.arm) if row.which == "last" else None
    data = ", ".join(f"{split} {fact['sha256'][:12]}" for split, fact in study.data[task].items())
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    settings = {"arm": dict(config), "train": study.recipe["train"], "seed": seed}
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {in_markdown(f'{row.arm}, {task}')}",
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


def _results(study: Study, row: Row, rows: Sequence[Row]) -> Table:
    """The base and the checkpoint on every test set."""
    sets = [test for test in study.tests.values() if test.task == study.tests[row.task].task]
    shown = []
    for test in sets:
        base = study.base(test.label)
        models = {(row.arm, row.which)} | ({(base.name, "")} if base else set())
        shown += [r for r in rows if r.task == test.label and (r.arm, r.which) in models]
    names = ", ".join(f"{test.name} ({test.n} samples a problem)" for test in sets)
    return Table(
        ("test set", "model", "accuracy", at_k(shown, "pass"), "length", "KL to the base"),
        [(study.tests[r.task].name, r.arm, r.accuracy, r.pass_k, r.length.value, r.kl.value) for r in shown],
        {"length": 1, "KL to the base": 2},
        f"Test problems of {names} at temperature 1, over {study.seeds} seed(s); 95 % intervals over problems; KL in "
        "nats a response.",
    )


def _told(verdict: Verdict) -> str:
    return " ".join(said for said in (verdict.why, verdict.made_of) if said)


def _as_code(text: str) -> str:
    return " ".join(visible(text).replace("`", "'").split())
