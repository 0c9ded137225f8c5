"""A gain in its parts: each against what is known of made-up records, and their sum."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tiltlab.evaluation.opened import read_leniently
from tiltlab.tasks.dataset import Data
from tiltlab.types import Problem, Record
from tiltlab.verdict.form import form_table
from tiltlab.verdict.verdict import Evidence, Verdict, decide

PROBLEMS = 80


def responses(
    seed: int,
    right_P: Sequence[float],
    *,
    ends: float = 1.0,
    boxed: float = 1.0,
    n: int = 16,
    mistake: str | None = None,
) -> list[Record]:
    """n responses to each problem, of which so many end, and so many of those have their answer in a box. Wrong answers
    are all different, or all the one `mistake`."""
    generator = np.random.default_rng(seed)
    records = []
    for p, right in enumerate(right_P):
        for i in range(n):
            end, box, correct = (generator.random() < chance for chance in (ends, boxed, right))
            answer = "7" if correct else mistake or f"wrong {p} {i}"
            text = f"It is \\boxed{{{answer}}}" if box else f"It is {answer}"
            reason = "no_answer" if not (end and box) else "correct" if correct else "wrong"
            logp = float(generator.normal(-300, 25))
            shown = answer if reason != "no_answer" else None
            records.append(
                Record("t", str(p), i, text, shown, float(reason == "correct"), reason, 300, bool(end), logp, logp)  # type: ignore[arg-type]
            )
    return records


def tuned(records: Sequence[Record]) -> list[Record]:
    return [replace(record, logp=record.logp - 5) for record in records]


def read(records: Sequence[Record]) -> list[Record]:
    """Whoever looks beyond the box finds what the text says, where it comes to an end."""
    said = [record.text.removeprefix("It is ").removeprefix("\\boxed{").removesuffix("}") for record in records]
    return [
        replace(r, answer=answer, reason="correct" if answer == "7" else "wrong", reward=float(answer == "7"))
        if r.complete
        else r
        for r, answer in zip(records, said, strict=True)
    ]


def total(verdict: Verdict) -> float:
    parts = verdict.parts
    assert parts is not None
    return parts.ends.value + parts.read.value + parts.sharpened.value + parts.taught.value


HALF = [0.5] * PROBLEMS


def test_what_ends_more_often_is_form() -> None:
    base, after = responses(0, HALF, ends=0.4), tuned(responses(1, HALF))
    verdict = decide(Evidence(base, after))
    assert verdict.outcome == "form explains it"
    assert verdict.parts is not None
    assert verdict.parts.ends.low < 0.3 < verdict.parts.ends.high
    assert verdict.parts.taught.low <= 0 <= verdict.parts.taught.high
    assert verdict.made_of is not None
    assert "is coming to an end" in verdict.made_of
    assert total(verdict) == pytest.approx(verdict.gain.difference.value, abs=1e-9)


def test_lenient_grades_tell_the_box_from_the_end() -> None:
    base, after = responses(0, HALF, ends=0.7, boxed=0.5), tuned(responses(1, HALF))
    strict = decide(Evidence(base, after)).parts
    verdict = decide(Evidence(base, after, lenient=(read(base), read(after))))
    both = verdict.parts
    assert strict is not None
    assert both is not None
    assert not strict.read_known
    assert strict.read.value == 0
    assert (both.ends.value, both.read.value) == pytest.approx((0.5 * 0.3 * 0.5, 0.5 * 0.5), abs=0.04)
    assert strict.ends.value == pytest.approx(0.5 * (1 - 0.35), abs=0.04)
    assert total(verdict) == pytest.approx(verdict.gain.difference.value, abs=1e-9)


def test_form_is_no_excuse_for_what_was_taught() -> None:
    base = responses(0, [0.3] * PROBLEMS, boxed=0.5, mistake="8", n=64)
    after = tuned(responses(1, [0.9] * PROBLEMS, mistake="8", n=64))
    verdict = decide(Evidence(base, after))
    assert verdict.outcome == "beyond sharpening"
    assert verdict.parts is not None
    assert verdict.parts.ends.value == pytest.approx(0.15, abs=0.04)
    assert verdict.parts.taught.low - 0.02 < 0.6 < verdict.parts.taught.high + 0.02
    assert verdict.made_of is not None
    assert "is giving an answer where it is read" in verdict.made_of
    assert verdict.made_of.endswith("was taught.")


def test_voting_is_judged_on_a_base_that_answers() -> None:
    """The right answer is the most frequent of those given, not of all responses."""
    base, after = responses(0, [0.4] * PROBLEMS, boxed=0.6, n=32), tuned(responses(1, [0.97] * PROBLEMS, n=32))
    verdict = decide(Evidence(base, after))
    assert (verdict.outcome, verdict.by) == ("sharpening explains it", "answers")
    assert "of its answers (the vote of all samples would have had" in verdict.why
    assert verdict.made_of is not None
    assert "voting would have had" in verdict.made_of


def test_form_that_was_lost_is_a_negative_part() -> None:
    base, after = responses(0, [0.3] * PROBLEMS, mistake="8"), tuned(responses(1, [0.9] * PROBLEMS, ends=0.8))
    verdict = decide(Evidence(base, after))
    assert verdict.parts is not None
    assert verdict.parts.ends.value == pytest.approx(-0.06, abs=0.02)
    assert total(verdict) == pytest.approx(verdict.gain.difference.value, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_problems_without_an_answered_sample_bring_no_bias(seed: int) -> None:
    """A quarter of problems has no answered sample of 16, and those are the harder ones."""
    generator = np.random.default_rng(seed)
    problems, n = 3000, 16
    boxed_P = generator.beta(0.6, 2, problems)
    right_P = 0.2 + 0.6 * boxed_P
    ok = generator.random((problems, n)) < boxed_P[:, None]
    right = ok & (generator.random((problems, n)) < right_P[:, None])

    def record(p: int, i: int, good: bool, answered: bool) -> Record:
        reason = "correct" if good else "wrong" if answered else "no_answer"
        return Record("t", str(p), i, "", "7" if answered else None, float(good), reason, 9, True, -9.0, -9.0)  # type: ignore[arg-type]

    base = [record(p, i, bool(right[p, i]), bool(ok[p, i])) for p in range(problems) for i in range(n)]
    after = [record(p, i, False, True) for p in range(problems) for i in range(n)]
    table = form_table(base, after, None)
    assert 0.2 < table.lacking / problems < 0.4
    once = np.ones((1, problems))
    formed = table.strict.with_form.sums(once, table.tuned_P)[0] / problems
    assert formed == pytest.approx(right_P.mean(), abs=0.02)
    assert np.nanmean(table.strict.with_form.mean_P) > right_P.mean() + 0.03  # what leaving them out would say


def test_lenient_grades_are_of_the_same_records() -> None:
    base, after = responses(0, HALF), tuned(responses(1, HALF))
    with pytest.raises(ValueError, match="same records"):
        Evidence(base, after, lenient=(base[1:], after))


def test_only_what_ended_without_an_answer_is_read_again() -> None:
    task = Data("data", test="file.jsonl")
    texts = {"no_answer": "We get $x = 12$ at last, I believe", "wrong": "\\boxed{13} or 12"}
    records = [
        Record("t", "a", i, texts[reason], None, 0.0, reason, 9, complete, -9.0, -9.0)  # type: ignore[arg-type]
        for i, (reason, complete) in enumerate([("no_answer", True), ("no_answer", False), ("wrong", True)])
    ]
    again = read_leniently(task, {"a": Problem("a", "?", "12")}, records)
    assert again is not None
    assert [record.reason for record in again] == ["correct", "no_answer", "wrong"]
    assert read_leniently(replace(task, grader="maths_lenient"), {}, records) is None
