"""Right and wrong answers as people and models spell them, by kind: spellings/KIND.jsonl.

A line is {"gold", "response", "paid"}. Most of them were written before the grader could read them, many after inputs
of public bug reports.
"""

import json
from pathlib import Path

import pytest

from tiltlab.grading.maths import Mode, grade_many

KINDS = sorted((Path(__file__).parent / "spellings").glob("*.jsonl"))


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda path: path.stem)
def test_right_answers_are_paid_and_wrong_ones_are_not(kind: Path, mode: Mode) -> None:
    cases = [json.loads(line) for line in kind.read_text(encoding="utf-8").splitlines()]
    grades = grade_many([(case["response"], case["gold"]) for case in cases], mode, deadline=20.0)
    unlike = [
        (case["gold"], case["response"][-120:], grade.reason)
        for case, grade in zip(cases, grades, strict=True)
        if (grade.reason == "correct") != case["paid"]
    ]
    assert unlike == []


def test_every_kind_has_twenty_spellings() -> None:
    assert len(KINDS) >= 30
    for kind in KINDS:
        assert len(kind.read_text(encoding="utf-8").splitlines()) >= (
            12 if kind.stem.endswith(("box", "brace")) else 20
        )
