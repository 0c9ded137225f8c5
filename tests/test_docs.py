"""What README and docs tell users to type is there, and what is cheap is run as it stands."""

import re
import shlex
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
import typer
from typer.testing import CliRunner

import tiltlab
from tests.records.folders import write_folders
from tiltlab.cli.main import app
from tiltlab.config import recipe as recipes
from tiltlab.config.engine import EngineConfig
from tiltlab.models.loading import LoraConfig, ModelConfig
from tiltlab.storage.run_folder import read_json
from tiltlab.training.importance import Correction
from tiltlab.training.optimizer import OptimizerConfig

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
COMMANDS = typer.main.get_command(app)

QUICK = {
    "tiltlab forecast --base embedded --task noisy-sum": "--limit 6 -n 4",
    "tiltlab evaluate --model embedded --task lazy-sum --sampler power_mcmc --set sampler.alpha=4 "
    "--set sampler.steps=32": "--limit 2 -n 2",
}
"""Run by themselves; with these options behind them, to be cheap."""

PLANS = ("tiltlab plan",)
"""Run as they stand: they cost nothing, and write nothing."""

TUTORIAL = {
    "study": "--jobs 1 --set train.steps=2 --set 'test={problems: 6, n: 4, forecast_n: 4}' "
    "--set 'validation={every: 2, problems: 2}'",
    "verdict": "--limit 6 -n 4",
    "forecast": "--limit 6 -n 4",
}
"""What each command of the tutorial is given besides."""

UNSEEN = {
    "push runs/records": "the hub",
    "evaluate --model server": "a server; run by tests/models with another task",
    "verdict --base server": "a server; run by tests/models with another task",
    "verdict --base BASE": "a model; run by tests/cli",
}
"""What of the page on one's own run is only parsed: how the command begins, and why."""

NEEDS = {
    "lab": "half a minute; run by tests/lab",
    "study my-study.yaml": "a model of the hub",
    "study recipes/paper": "models of the hub; run by tests/study with small ones",
    "report runs/my-study": "the study before it",
    "status runs/my-study": "the study before it",
    "status runs/my-evaluation": "run by tests/cli",
    "list samplers": "run by tests/cli",
    "compare runs/one": "two studies",
    "check math500": "a data set",
    "check data": "a data set",
    "evaluate --model M": "a model",
    "evaluate --model Qwen": "a model of the hub",
    "evaluate --model runs/mine": "a model of the hub",
    "evaluate --responses": "a file of responses",
    "evaluate my.yaml": "a recipe",
    "forecast --base MODEL": "a model",
    "forecast --base records.jsonl": "records",
    "forecast --base mine.jsonl": "a file of another program; run by tests/records",
    "score records.jsonl": "a model and records; run by tests/cli",
    "score 500.jsonl": "a model and a dump of verl; run by tests/cli",
    "verdict --base runs/verl": "dumps of verl; run by tests/records",
    "verdict --base 0.jsonl": "dumps of verl; run by tests/cli",
    "verdict --base BASE": "two models",
    "verdict --base Qwen": "models of the hub",
    "export verl recipes": "data of the hub; run by tests/verl with the embedded model",
    "score runs/verl": "a model of the hub and dumps of verl; run by tests/cli",
}
"""Only parsed: how the command begins, and why it is not run."""


def blocks(text: str) -> list[str]:
    """Fenced and indented blocks of code."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^ *```\w*\n.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return fenced + re.findall(r"(?:^(?: {4}.*)\n)+", rest, re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Lines of code that call tiltlab, without remarks; a line that ends in a backslash goes on."""
    lines = [
        line.strip()
        for block in blocks(page.read_text(encoding="utf-8"))
        for line in re.sub(r" *\\\n *", " ", block).splitlines()
    ]
    return [re.sub(r"\s+#.*| {3,}.*", "", line) for line in lines if line.startswith("tiltlab ")]


ALL = [(page, command) for page in PAGES for command in commands(page)]


def is_usage(command: str) -> bool:
    """Whether it shows what may be given, as [--out RUN], and is not to be typed."""
    return " [" in command or " ... " in command


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page.name}: {command[8:60]}" for page, command in ALL])
def test_every_command_in_the_docs_is_one(page: Path, command: str) -> None:
    if is_usage(command):
        assert set(re.findall(r"--[\w-]+", command)) <= options(command.split()[1])
        return
    _, name, *arguments = shlex.split(command)
    assert name in COMMANDS.commands
    command_ = COMMANDS.commands[name]
    context = command_.make_context(name, arguments, parent=click.Context(COMMANDS))  # raises where it is wrong
    if hasattr(command_, "commands"):
        word, within, rest = command_.resolve_command(context, [*context._protected_args, *context.args])
        within.make_context(word, rest, parent=context)


def options(name: str) -> set[str]:
    known = [COMMANDS.commands[name]] if name in COMMANDS.commands else COMMANDS.commands.values()
    each = [one for command in known for one in (command, *getattr(command, "commands", {}).values())]
    return {option for command in each for parameter in command.params for option in parameter.opts}


def test_every_command_is_run_or_said_not_to_be() -> None:
    tutorial = {command for page, command in ALL if page.name == "tutorial.md"}
    own_run = {command for page, command in ALL if page.name == "your-run.md"}
    others = {command for _, command in ALL if not is_usage(command)} - set(QUICK) - tutorial - own_run
    others = {command for command in others if not command.startswith(PLANS)}
    begun = {command: [start for start in NEEDS if command.startswith(f"tiltlab {start}")] for command in others}
    assert not [command for command, starts in begun.items() if not starts], "neither run nor listed"
    assert set(NEEDS) == {start for starts in begun.values() for start in starts}, "listed, and in no page"
    assert set(QUICK) <= {command for _, command in ALL}


@pytest.mark.parametrize("command", QUICK)
def test_what_is_quick_runs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran(f"{command} {QUICK[command]}")
    assert list(tmp_path.rglob("*.html"))


@pytest.mark.parametrize("command", [command for _, command in ALL if command.startswith(PLANS)])
def test_plans_are_told(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran(command.replace(" recipes/", f" {ROOT}/recipes/"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands(ROOT / "docs" / "tutorial.md"):
        if "embedded" in command or "study" in command:
            ran(f"{command.replace('step-000060', 'step-000002')} {TUTORIAL[command.split()[1]]}")
    for name in ("verdict-lazy", "verdict-noisy"):
        assert read_json(tmp_path / "runs" / name / "verdict.json")["outcome"]
    assert (tmp_path / "runs" / "forecast" / "forecast.html").exists()


@pytest.mark.slow
def test_your_run_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folders(tmp_path)
    page = ROOT / "docs" / "your-run.md"
    shown = re.findall(r"```text\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    told = ""
    unseen = tuple(f"tiltlab {start}" for start in UNSEEN)
    for command in commands(page):
        if not command.startswith(unseen):
            told += ran(command)
    verdicts = list((tmp_path / "runs").glob("*/verdict.json"))
    assert len(verdicts) == 9
    assert {read_json(path)["outcome"] for path in verdicts} == {"form explains it"}
    said = [part for block in shown if re.match(r"\S+: ", block) for part in re.split(r"\n(?=\S+: )", block)]
    assert len(said) >= 8
    for part in said:
        assert " ".join(part.split("...")[0].split()) in " ".join(told.split())


def ran(command: str) -> str:
    done = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_example_in_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    modules = re.findall(r"^\s*(?:from|import) ([\w.]+)", example, re.MULTILINE)
    assert set(modules) == {"tiltlab"}
    for given, smaller in (
        ("steps=60", "steps=2"),
        ("[:50]", "[:4]"),
        ('"n": 16', '"n": 4'),
        ("responses=8", "responses=2"),
    ):
        assert example.count(given) == 1
        example = example.replace(given, smaller)
    exec(example, {})
    *steps, verdict = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in steps] == ["0", "1"]
    assert re.match(r"(beyond sharpening|sharpening explains it|no gain|collapse|cannot tell) \S", verdict)


def test_the_reference_has_a_page_for_every_room() -> None:
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md")}
    named = [name for text in pages.values() for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)]
    for name in named:
        resolve_name(name)  # raises for what is not there
    rooms = {path.parent.name for path in (ROOT / "src" / "tiltlab").glob("*/__init__.py")}
    assert {f"tiltlab.{room}" for room in rooms - {"cli", "embedded", "examples"}} <= set(named)
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page for page in pages if f"reference/{page}.md" not in site]
    offered = set(tiltlab.__all__)
    assert not {name for name in offered if f"`{name}`" not in pages["tiltlab"]}


def test_recipes_md_names_every_key() -> None:
    text = " ".join(re.findall(r"`([^`]+)`", (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")))
    sections = [recipes.Recipe, recipes.Training, recipes.Validation, recipes.Testing]
    keys = {key for section in sections for key in section.model_fields}
    keys |= {
        field.name
        for kind in (ModelConfig, LoraConfig, OptimizerConfig, EngineConfig, Correction)
        for field in fields(kind)
    }
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()
    evaluation = (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"# keys: (.*)", evaluation)
    assert set(told.split(", ")) == set(recipes.SampleRecipe.model_fields)


def test_links_and_paths_lead_somewhere() -> None:
    gallery = (ROOT / "docs" / "gallery.py").read_text(encoding="utf-8")  # its pages are made with the site
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            made = link.startswith("gallery/") and f'"{Path(link).stem}": ([' in gallery
            assert made or (page.parent / link).exists(), f"{page.name}: {link}"
        for path in re.findall(r"\b(?:src|tests|benchmarks)/[\w/.-]+\.(?:py|yaml)\b", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
