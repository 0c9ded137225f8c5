"""The page of a verdict and its words: parts of the gain, how far sharpening was followed, what more samples add."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.forecast.test_lines import answering, world
from tiltlab.report.outcome import by_which, called, followed_rows, tax_in_words
from tiltlab.report.parts import PARTS, parts_of, parts_of_arms
from tiltlab.report.terminal import print_verdict
from tiltlab.report.verdict import write_verdict_page
from tiltlab.stats.metrics import Interval
from tiltlab.types import Record
from tiltlab.verdict.pass_curves import Crossing, PassCurves
from tiltlab.verdict.verdict import Evidence, Verdict, decide

MADE: dict[str, Any] = {"command": ["tiltlab"], "versions": {}, "python": "3", "machine": "m", "commit": None}


def drawn(form: float, right: float, seed: int, problems: int = 40, n: int = 16) -> list[Record]:
    """Responses of which a share ends with an answer, and of those a share is right."""
    rng = np.random.default_rng(seed)
    records = []
    for p in range(problems):
        for i in range(n):
            answer = "1" if rng.random() < right else str(rng.integers(2, 6))
            record = answering(str(p), answer, -30 + 5 * rng.normal(), 40)
            if rng.random() > form:
                record = replace(record, reason="no_answer", answer=None, reward=0.0)
            records.append(replace(record, sample=i))
    return records


BASE, FORMED = drawn(0.5, 0.4, 0), drawn(1.0, 0.4, 1)
FORM = decide(Evidence(BASE, FORMED))
WORSE = decide(Evidence(FORMED, drawn(1.0, 0.1, 2)))


def page_of(verdict: Verdict, folder: Path) -> str:
    write_verdict_page(verdict, BASE, FORMED, {}, {}, MADE, folder / "page.html")
    text = (folder / "page.html").read_text(encoding="utf-8")
    return re.sub(r"<script[ >].*?</script>|<style>.*?</style>", "", text, flags=re.DOTALL)


def test_parts_are_stacked_from_0_and_sum_to_the_gain() -> None:
    for verdict in (FORM, WORSE):
        figure = parts_of(verdict)
        assert figure is not None
        assert figure.layout.barmode == "relative"
        stacked = [bar.x[0] for bar in figure.data if bar.y[0] == "the gain"]
        assert sum(stacked) == pytest.approx(verdict.gain.difference.value, abs=1e-9)
    assert min(stacked) < 0  # a loss lies to the left of 0


def test_each_part_has_its_name_its_figures_and_a_pattern_of_its_own() -> None:
    figure = parts_of(FORM)
    assert figure is not None
    assert FORM.parts is not None
    said = [note.text for note in figure.layout.annotations]
    assert said[0].startswith("the gain: <b>+0.")
    for part, text in zip(PARTS, said[1:], strict=True):
        assert text.startswith(f"{part.name}: <b>")
    assert re.search(r"ends and answers: <b>\+0\.\d+ \[\+0\.\d+, \+0\.\d+\]", said[1])
    assert said[2] == "answers where it is read: <b>not told apart</b>"  # nobody graded leniently
    assert len({part.colour for part in PARTS}) == len({part.pattern for part in PARTS}) == len(PARTS)
    ranged = [bar for bar in figure.data if bar.y[0] == "ends and answers"]
    assert ranged[0].error_x.array[0] > 0


def test_arms_of_a_study_have_a_bar_each_and_one_problem_has_no_parts() -> None:
    arms = {"one": FORM, "two": WORSE, "few": replace(FORM, parts=None)}
    figure = parts_of_arms(arms, "a task")
    assert figure is not None
    assert figure.layout.title.text == "a task"
    assert all(list(bar.y) == ["one", "two"] for bar in figure.data)
    assert parts_of_arms({"few": arms["few"]}, "") is None
    assert parts_of(arms["few"]) is None


def test_the_outcome_says_of_what_a_sharpening_is() -> None:
    voted = decide(Evidence(world("spread", n=32), [*world("spread", n=32, seed=1)]))
    assert called(FORM) == "form explains it"
    assert by_which(FORM) == ""
    explained = replace(voted, outcome="sharpening explains it", by="answers")
    assert called(explained) == "sharpening explains it, of its answers"
    assert called(replace(explained, by="both")) == "sharpening explains it, of its likelihood or its answers"


def test_how_far_either_family_was_followed_is_told_side_by_side() -> None:
    rows = {name: (likelihood, answers) for name, likelihood, answers in followed_rows(FORM)}
    assert re.match(r"log p -\d+\.\d, ", rows["followed to"][0])
    assert re.match(r"two agree: 0\.\d\d, (the vote of|answer power) \d+", rows["followed to"][1])
    assert set(rows["far enough"]) <= {"yes", "no"} or "guess" in rows["far enough"][0]
    assert followed_rows(replace(FORM, sharpened=None)) == []


def test_a_tuned_model_out_of_reach_is_told_with_a_guess_of_the_samples() -> None:
    far = [replace(record, ref_logp=record.ref_logp + 30, logp=record.logp + 30) for record in drawn(1.0, 0.9, 3)]
    verdict = decide(Evidence(drawn(1.0, 0.1, 4), far))
    assert verdict.outcome == "cannot tell"
    rows = {name: likelihood for name, likelihood, _ in followed_rows(verdict)}
    assert re.match(r"no(: it would take \d+ samples a problem, at a guess)?$", rows["far enough"])


def test_tax_and_crossing_are_one_plain_sentence_each() -> None:
    def told(k: float | None, low: float | None, high: float | None) -> str:
        taxes = Interval(0.25, 0.2, 0.3), Interval(0.1, 0.05, 0.15)
        return tax_in_words(replace(FORM, pass_curves=PassCurves(16, *taxes, Crossing(k, low, high)))) or ""

    assert told(5.3, 3.1, None).startswith(
        "Sharpening tax, from 16 samples: base 0.25 [0.20, 0.30], tuned 0.10 [0.05, 0.15]. In the mean over k, going "
        "from k to 16 samples still wins 25% of what one sample misses with the base, 10% with the tuned model. "
    )
    assert told(5.3, 3.1, None).endswith("The base’s pass@k overtakes at k = 5.3 [3.1, beyond 16].")
    assert told(None, 9.0, None).endswith("does not overtake the tuned model’s; at the earliest, at k = 9.")
    assert told(None, None, None).endswith("Up to k = 16 the base’s pass@k does not overtake the tuned model’s.")
    assert told(1.0, 1.0, 1.0).endswith("The base’s pass@k is the larger from k = 1 on.")
    assert tax_in_words(replace(FORM, pass_curves=None)) is None


def test_the_page_tells_the_parts_beside_the_sentence(tmp_path: Path) -> None:
    page = page_of(FORM, tmp_path)
    assert "<h1>Verdict: form explains it</h1>" in page
    assert '<div class="plot" id="parts">' in page
    assert f'<p class="lede">{FORM.made_of}</p>'.replace("'", "&#39;") in page
    assert "Nobody graded these responses leniently" in page
    assert "How far sharpening was followed" in page
    assert "Sharpening tax" in page


def test_a_verdict_of_one_problem_is_a_page_too(tmp_path: Path) -> None:
    bare = replace(FORM, parts=None, made_of=None, sharpened=None, pass_curves=None)
    page = page_of(bare, tmp_path)
    assert 'id="parts"' not in page
    assert "How far sharpening was followed" not in page


def test_on_a_terminal_the_parts_are_a_table() -> None:
    console = Console(width=100)
    with console.capture() as caught:
        print_verdict(FORM, console)
    said = caught.get()
    assert said.startswith("verdict: form explains it")
    assert re.search(r"ends and answers +\+0\.\d+", said)
    assert str(FORM.made_of) in said.replace("\n", " ")
    assert "Sharpening tax" in said
