"""A file in each format, written from a study's own records: the same verdict, as far as the format carries it."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.records import writers
from tests.records.study import Kept, drawn, problems, written_task
from tests.records.writers import Writer
from tiltlab.evaluation.opened import read_leniently
from tiltlab.evaluation.outside import Asked
from tiltlab.records.opening import Reading
from tiltlab.records.recognise import FormatName
from tiltlab.types import Record
from tiltlab.verdict.inputs import from_files
from tiltlab.verdict.verdict import Evidence, Verdict, decide

TEXT_ONLY = Kept()
SCORED = Kept(ends=True, tokens=True, logp=True)

FORMATS: dict[str, tuple[Writer, FormatName, Kept]] = {
    "inspect .eval": (writers.inspect_eval, "inspect", SCORED),
    "inspect .eval, zstandard": (writers.inspect_zstandard, "inspect", SCORED),
    "inspect .json": (writers.inspect_json, "inspect", SCORED),
    "lm-eval": (writers.lm_eval, "lm-eval", TEXT_ONLY),
    "verl": (writers.verl, "verl", TEXT_ONLY),
    "verl, exported": (writers.exported, "verl", Kept(ends=True, tokens=True)),
    "verl, exported: rollouts": (
        writers.exported_rollouts,
        "verl",
        Kept(ends=True, tokens=True, logp=True, ref_logp=True),
    ),
    "trl": (writers.trl, "trl", TEXT_ONLY),
    "prime-rl": (writers.prime_rl, "prime-rl", Kept(ends=True, tokens=True, logp=True, ref_logp=True)),
    "nemo-rl": (writers.nemo_rl, "nemo-rl", Kept(tokens=True, logp=True)),
    "open-instruct": (writers.open_instruct, "open-instruct", SCORED),
    "openai": (writers.openai, "openai", SCORED),
    "plain": (writers.plain, "plain", Kept(ends=True, tokens=True, logp=True, ref_logp=True)),
}

FORM, COLLAPSE, TAUGHT = (
    "only the format learnt",
    "spread 25: p^1.04, wrong ones likelier",
    "spread 25: taught, as likely",
)


def reading(name: str, path: Path) -> Reading:
    """What nobody can tell from the rows of a file."""
    return Reading(
        fields=writers.FIELDS if name == "plain" else None,
        tokenizer=path.parent if name == "open-instruct" else None,
    )


Opened = Callable[[str, str], tuple[Evidence, list[str]]]
"""What is read of a format's files of a plant, by their names, and what is said."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


@pytest.fixture(scope="module")
def opened(folder: Path) -> Opened:
    """Written and read once."""

    @cache
    def of(name: str, plant: str) -> tuple[Evidence, list[str]]:
        base, tuned = drawn(plant)
        place = folder / f"{name}, {plant}"
        paths = [FORMATS[name][0](records, place / side) for side, records in (("base", base), ("tuned", tuned))]
        said: list[str] = []
        asked = Asked(reading(name, paths[0]), written_task(folder), say=said.append)
        return from_files(*paths, asked=asked), said

    return of


@cache
def on_records(plant: str) -> Verdict:
    return decide(Evidence(*drawn(plant)))


@cache
def expected(plant: str, kept: Kept, folder: Path, *, bytes_: bool) -> Verdict:
    """The verdict on the study's own records, without what the format does not keep."""
    task = written_task(folder)
    base, tuned = ([_counted(r) for r in kept.of(side)] if bytes_ else kept.of(side) for side in drawn(plant))
    lenient = [read_leniently(task, problems(), records) for records in (base, tuned)]
    own = [replace(record, ref_logp=record.logp) for record in base]
    own_lenient = [replace(record, ref_logp=record.logp) for record in lenient[0] or []]
    return decide(Evidence(own, tuned, lenient=(own_lenient, lenient[1] or [])))


def _counted(record: Record) -> Record:
    """With a token a byte."""
    return replace(record, tokens=len(record.text.encode()))


def same(found: object, wanted: object, path: str = "verdict") -> None:
    """Whether two results are one, but for rounding."""
    if isinstance(wanted, float):
        assert found == pytest.approx(wanted, abs=1e-6, nan_ok=True), path
    elif hasattr(wanted, "__dataclass_fields__"):
        for name in wanted.__dataclass_fields__:
            same(getattr(found, name), getattr(wanted, name), f"{path}.{name}")
    elif isinstance(wanted, dict):
        assert isinstance(found, dict), path
        assert found.keys() == wanted.keys(), path
        for name in wanted:
            same(found[name], wanted[name], f"{path}.{name}")
    elif isinstance(wanted, tuple):
        assert isinstance(found, tuple), path
        assert len(found) == len(wanted), path
        for i, (left, right) in enumerate(zip(found, wanted, strict=True)):
            same(left, right, f"{path}[{i}]")
    else:
        assert found == wanted, path


@pytest.mark.parametrize("plant", [FORM, TAUGHT])
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format_has_the_verdict_of_the_records_that_it_was_written_from(
    name: str, plant: str, opened: Opened, folder: Path
) -> None:
    kept = FORMATS[name][2]
    found = decide(opened(name, plant)[0])
    same(found, expected(plant, kept, folder, bytes_=name == "open-instruct"))
    whole = on_records(plant)
    same(found.gain, whole.gain)
    if plant != TAUGHT or kept.ref_logp:
        assert found.outcome == whole.outcome
    else:
        assert found.outcome == "cannot tell"
        assert "log p" in str(found.needs)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_read_and_what_a_format_lacks_is_said(name: str, opened: Opened) -> None:
    _, form, kept = FORMATS[name]
    _, said = opened(name, FORM)
    told = "\n".join(said)
    assert "480 responses" in told
    assert "480 of 480 responses answer 60 of 60 problems" in told
    assert ("whether responses ended is not known" in told) is not kept.ends
    assert ("no log-probabilities, so" in told) is not kept.logp
    assert ("no log-probabilities under the base" in told) is not kept.ref_logp
    assert ("no lengths" in told) is not kept.tokens
    assert form == "plain" or any(
        part in told for part in ("Inspect", "dump of", "traces", "batch", "rollouts", "TRL", "harness")
    )


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("openai", "lm-eval")])
def test_grades_may_be_the_file_s_own(name: str, tmp_path: Path) -> None:
    write, _, _ = FORMATS[name]
    base, tuned = drawn(COLLAPSE)
    paths = [write(records, tmp_path / side) for side, records in (("base", base), ("tuned", tuned))]
    examined = from_files(*paths, asked=Asked(reading(name, paths[0])))
    assert [r.reason == "correct" for r in examined.base] == [r.reason == "correct" for r in base]
    assert decide(examined).gain.b.value == pytest.approx(on_records(COLLAPSE).gain.b.value)


@pytest.mark.parametrize("name", FORMATS)
def test_log_probabilities_are_summed_over_the_tokens_that_were_drawn(name: str, opened: Opened) -> None:
    _, tuned = drawn(TAUGHT)
    kept, (examined, _) = FORMATS[name][2], opened(name, TAUGHT)
    for found, own in zip(examined.tuned, tuned, strict=True):
        assert found.problem == own.problem
        assert found.text == own.text
        assert math.isnan(found.logp) if not kept.logp else found.logp == pytest.approx(own.logp, abs=1e-6)
        assert math.isnan(found.ref_logp) if not kept.ref_logp else found.ref_logp == pytest.approx(own.ref_logp)


def test_by_grades_alone_nothing_is_beyond_sharpening_as_nobody_could_vote(tmp_path: Path) -> None:
    paths = [writers.prime_rl(records, tmp_path / side) for side, records in zip("bt", drawn(TAUGHT), strict=True)]
    assert decide(from_files(*paths, asked=Asked(task=written_task(tmp_path)))).outcome == "beyond sharpening"
    theirs = decide(from_files(*paths, asked=Asked(grades="theirs")))
    assert theirs.outcome == "cannot tell"
    assert "what voting would have is not known" in theirs.why
    assert "name the task" in str(theirs.needs)
