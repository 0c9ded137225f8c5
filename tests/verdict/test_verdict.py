"""The verdict on pairs of which the truth is known, and on files that say too little."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest

from tests.forecast.closed_form import tilted_by_binary_reward
from tests.planted.catalogue import LANGUAGES, PLANTS
from tests.planted.enumerable import World
from tiltlab.errors import UserError
from tiltlab.evaluation.outside import Asked
from tiltlab.forecast.forecast import covariance, forecast
from tiltlab.forecast.weighted_samples import from_records
from tiltlab.models.loading import ModelConfig
from tiltlab.models.table import optimum
from tiltlab.objective import tempered
from tiltlab.report.verdict import write_verdict_page
from tiltlab.storage.files import append_lines, write_json
from tiltlab.storage.records import write_records
from tiltlab.tasks.sums import Sums
from tiltlab.types import Record
from tiltlab.verdict.inputs import from_files, from_models
from tiltlab.verdict.solved_problems import profile, solved_problems
from tiltlab.verdict.verdict import Evidence, Verdict, base_path, decide


def test_what_sharpening_recovers_is_told_with_its_interval() -> None:
    sharpened = LANGUAGES[3].verdict(7).sharpened
    assert sharpened is not None
    found = sharpened.likelihood
    assert found is not None
    world = World.make("lazy", 7, 150)
    right = world.correct_PS.double()
    exact = {alpha: (optimum(tempered(alpha), world.base, right) * right).sum(1).mean().item() for alpha in (1, 2, 4)}
    assert max(exact.values()) == exact[1]  # sharpening hurts here, and the best is not to sharpen
    # half a width more: the interval is over problems like these, and `exact` of these alone
    half = (found.accuracy.high - found.accuracy.low) / 2
    assert found.accuracy.low - half < exact[1] < found.accuracy.high + half


def test_the_forecast_meets_the_enumerated_figures_or_is_withheld() -> None:
    world = World.make("helpful", 3, 150)
    right = world.correct_PS.double()
    records, _ = world.drawn(world.logp_PS, 64, 1)
    found = forecast(from_records(records), alphas=(1.0, 1.25, 1.5, 2.0, 8.0), betas=(1.0, 0.5))
    supported = [point for point in found.points if point.supported]
    assert {point.alpha for point in supported} >= {1.0, 1.25}
    for point in supported:
        assert point.accuracy is not None
        assert point.kl is not None
        logits = point.alpha * world.logp_PS + (right / point.beta if point.beta else 0.0)
        distribution = logits.softmax(1)
        kl = (distribution * (distribution.log() - world.logp_PS).nan_to_num(neginf=0.0)).sum(1).mean().item()
        for interval, exact in ((point.accuracy, (distribution * right).sum(1).mean().item()), (point.kl, kl)):
            width = interval.high - interval.low  # of 95 %, twice over: four standard errors
            assert interval.low - width / 2 - 1e-6 < exact < interval.high + width / 2 + 1e-6
    for point in found.points:
        assert (point.accuracy is None) == (not point.supported)
        assert point.supported or (point.why and point.samples_needed)
    slope = covariance(from_records(records))
    distribution = world.logp_PS.exp()
    mean = (distribution * world.logp_PS).sum(1, keepdim=True)
    exact = (distribution * (world.logp_PS - mean) * right).sum(1).mean().item()
    assert slope.low - (slope.high - slope.low) / 2 < exact < slope.high + (slope.high - slope.low) / 2


@pytest.mark.parametrize(("accuracy", "beta"), [(0.3, 1.0), (0.9, 0.1), (0.0, 0.5), (1.0, 0.5)])
def test_the_closed_form_is_the_sum(accuracy: float, beta: float) -> None:
    p = np.array([accuracy, 1 - accuracy])
    q = p * np.exp(np.array([1.0, 0.0]) / beta)
    q /= q.sum()
    kl = float(sum(b * np.log(b / a) for a, b in zip(p, q, strict=True) if b > 0))
    assert tilted_by_binary_reward(accuracy, beta) == pytest.approx((q[0], kl))


def test_solved_problems_are_counted_and_the_crossing_is_told() -> None:
    world = World.make("helpful", 0, 60)
    base, _ = world.drawn(world.logp_PS, 16, 1)
    stuck, _ = world.drawn(world.distribution(tempered(8)).clamp(min=-80), 16, 2)
    found = solved_problems(base, stuck)
    assert found.kept + found.gained + found.lost + found.unsolved == 60
    assert found.crossing is not None  # a sharpened model is overtaken once k is large
    assert profile(stuck).entropy < profile(base).entropy


def test_records_that_nobody_scored_under_the_base_have_no_log_p_there_and_that_is_said(tmp_path: Path) -> None:
    world = World.make("helpful", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    write_records(tmp_path / "base.jsonl", base)
    said: list[str] = []
    examined = from_files(tmp_path / "base.jsonl", tmp_path / "base.jsonl", asked=Asked(say=said.append))
    assert all(isnan(record.ref_logp) for record in examined.tuned)  # the tuned model was its own reference
    assert [record.ref_logp for record in examined.base] == pytest.approx([record.logp for record in base])
    assert "no log-probabilities under the base" in said[0]
    assert "tiltlab score" in said[0]


@pytest.mark.parametrize("scored", ["neither", "the base"])
def test_without_log_p_a_verdict_is_told_from_answers_alone_where_it_can_be(scored: str) -> None:
    def unscored(records: Sequence[Record]) -> list[Record]:
        return [replace(record, logp=nan, ref_logp=nan) for record in records]

    def found(name: str) -> Verdict:
        planted = next(plant for plant in PLANTS if plant.name == name).make(3)
        base = planted.base if scored == "the base" else unscored(planted.base)
        return decide(Evidence(base, unscored(planted.tuned)))

    voted = found("vote of 16, likelihood hurts")
    assert (voted.outcome, voted.by) == ("sharpening explains it", "answers")
    assert found("only ending learnt").outcome == "form explains it"
    taught = found("spread 25: taught, as likely")
    assert taught.outcome == "cannot tell"  # and never "beyond sharpening", which nobody could know
    assert "tiltlab score" in str(taught.needs)
    assert "not known" in taught.why


def test_a_few_responses_without_log_p_are_left_out_and_many_are_not(tmp_path: Path) -> None:
    planted = next(plant for plant in PLANTS if plant.name == "spread 25: taught, as likely").make(3)
    for every, known in ((20, True), (5, False)):
        base = [replace(r, ref_logp=nan) if i % every == 0 else r for i, r in enumerate(planted.base)]
        path = base_path(base)
        assert (path.samples is not None) is known
        assert (path.ranks is not None) is known
        assert path.votes is not None


def test_files_that_hold_no_records_are_refused(tmp_path: Path) -> None:
    world = World.make("helpful", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    write_records(tmp_path / "base.jsonl", base)
    with pytest.raises(UserError, match="does not exist"):
        from_files(tmp_path / "none.jsonl", tmp_path / "base.jsonl")
    (tmp_path / "odd.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(UserError, match="odd.jsonl is of no format that is known"):
        from_files(tmp_path / "odd.jsonl", tmp_path / "base.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match="empty.jsonl is empty"):
        from_files(tmp_path / "base.jsonl", tmp_path / "empty.jsonl")


def test_records_that_no_verdict_can_be_made_of_are_refused(tmp_path: Path) -> None:
    world = World.make("helpful", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    tuned, _ = world.drawn(world.taught(), 8, 2)
    write_records(tmp_path / "base.jsonl", base)
    odd = {
        "no problem in common": [replace(r, problem=f"other {r.problem}") for r in tuned],
        "no response that could be graded": [replace(r, reason="timeout") for r in tuned],
    }
    for said, records in odd.items():
        write_records(tmp_path / "tuned.jsonl", records)
        with pytest.raises(UserError, match=said):
            from_files(tmp_path / "base.jsonl", tmp_path / "tuned.jsonl")


def test_too_little_to_say_is_said_so(tmp_path: Path) -> None:
    world = World.make("helpful", 0, 8)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    tuned, _ = world.drawn(world.taught(), 8, 2)
    one = decide(Evidence([r for r in base if r.problem == "0"], [r for r in tuned if r.problem == "0"]))
    assert (one.outcome, one.needs) == ("cannot tell", "more problems")
    assert "nan" not in one.why
    few = decide(Evidence(base, tuned))
    assert few.outcome == "cannot tell"
    made = {"command": [], "versions": {}, "python": "3", "machine": "x", "commit": None}
    write_verdict_page(few, base, tuned, {}, {}, made, tmp_path / "page.html")
    assert "fewer than 10 problems" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_collapse_into_responses_that_never_end_says_so() -> None:
    world = World.make("helpful", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    endless = [replace(r, complete=False, reason="wrong", reward=0.0) for r in base]
    found = decide(Evidence(base, endless))  # type: ignore[arg-type]
    assert found.outcome == "collapse"
    assert "100% of its responses are truncated" in found.why


def test_not_to_sharpen_is_always_a_choice() -> None:
    """Where power samplers only hurt and the samples support nothing (too few problems), the best sharpening is none,
    and not a bad one."""
    world = World.make("lazy", 0, 8)
    base, _ = world.drawn(world.logp_PS, 16, 1)
    tuned, _ = world.drawn(world.taught(), 16, 2)
    worse = {f"p^{alpha}": world.drawn(world.distribution(tempered(alpha)), 16, alpha)[0] for alpha in (4, 8)}
    found = decide(Evidence(base, tuned, powers=worse)).sharpened
    assert found is not None
    assert found.chosen == ("alpha 1, none",)
    assert found.accuracy.value == pytest.approx(decide(Evidence(base, tuned)).gain.a.value)
    assert found.recovered.value == pytest.approx(0.0)


def test_what_sharpening_reaches_is_said_in_words_for_people() -> None:
    """Where nothing beats the base it is not called alpha 1; where it reaches more than training did, no share of the
    gain is told."""
    world = World.make("unsolved", 0, 60)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    tuned, _ = world.drawn(world.taught(), 8, 2)
    none = decide(Evidence(base, tuned)).why
    assert "; no sharpening tried beats the base" in none
    assert "alpha 1" not in none
    perfect = [replace(record, reason="correct", reward=1.0) for record in base]
    found = decide(Evidence(base, tuned, rivals={"colder": perfect}))
    assert f"sharpening alone (colder) reaches 1.000, training reached {found.gain.b.value:.3f}" in found.why
    assert "of the gain" not in found.why


def test_more_samples_of_the_base_tell_of_its_sharpening_and_of_nothing_else() -> None:
    world = World.make("helpful", 0, 60)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    more, _ = world.drawn(world.logp_PS, 120, 2)
    tuned, _ = world.drawn(world.distribution(tempered(2)), 8, 3)
    few, many = (
        decide(Evidence(base, tuned)),
        decide(Evidence(base, tuned, path=base_path([*base, *more]))),
    )
    assert few.gain == many.gain
    assert few.solved_problems == many.solved_problems
    assert few.sharpened is not None
    assert many.sharpened is not None
    assert few.sharpened.reach < many.sharpened.reach
    assert many.outcome == "sharpening explains it"
    lazy = World.make("lazy", 0, 60)
    before, _ = lazy.drawn(lazy.logp_PS, 8, 1)
    path = base_path([*before, *lazy.drawn(lazy.logp_PS, 120, 2)[0]])
    taught = decide(Evidence(before, lazy.drawn(lazy.taught(), 8, 3)[0], path=path))
    assert taught.sharpened is not None
    of = taught.sharpened.likelihood
    assert of is not None
    assert of.chosen == ("alpha 1, none",)
    assert of.accuracy.value == pytest.approx(taught.gain.a.value)  # the same base, said once
    with pytest.raises(ValueError, match="further samples"):
        Evidence(base, tuned, [0.0] * len(base), path=path)


def test_a_path_that_was_told_once_serves_for_every_tuned_model() -> None:
    world = World.make("helpful", 0, 40)
    base, _ = world.drawn(world.logp_PS, 16, 1)
    path = base_path(base)
    assert path.reach > 1
    for distribution in (world.distribution(tempered(2)), world.taught(), world.collapsed()):
        tuned, _ = world.drawn(distribution, 16, 2)
        assert decide(Evidence(base, tuned, path=path)) == decide(Evidence(base, tuned))
    assert base_path(base[:3]).accuracy == {}


def test_the_page_of_a_verdict_shows_power_samplers_where_the_forecast_is_withheld(tmp_path: Path) -> None:
    world = World.make("helpful", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    tuned, _ = world.drawn(world.taught(), 8, 2)
    made = {"command": [], "versions": {}, "python": "3", "machine": "x", "commit": None}
    powers = {"power SMC 2": (tuned, [0.5] * 20)}
    write_verdict_page(decide(Evidence(base, tuned)), base, tuned, {}, {}, made, tmp_path / "page.html", powers)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "the base sharpened by power SMC" in page
    assert '"name": "power SMC 2"' in page
    assert "By the forecast, " in page


def test_folders_bring_their_questions_and_tokens_along(tmp_path: Path) -> None:
    world = World.make("helpful", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    tuned, _ = world.drawn(world.taught(), 8, 2)
    line = {"problem": "0", "logp": [-1.0], "ref_logp": [-2.0], "ranks": [0], "pieces": ["2"]}
    for name, records, reference in (("base", base, None), ("tuned", tuned, "base"), ("cold", base, None)):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "records.jsonl", records)
        about = {"recipe": {"reference": reference}, "questions": {"0": ["What is 1+1?", "2"]}}
        write_json(tmp_path / name / "sample.json", about)
        append_lines(tmp_path / name / "tokens.jsonl", [line | {"of": name}])
    found = from_files(tmp_path / "base", tmp_path / "tuned", [tmp_path / "cold" / "records.jsonl"])
    assert found.tokens == {"base": [line | {"of": "base"}], "tuned": [line | {"of": "tuned"}]}
    assert found.questions == {"0": "What is 1+1?"}
    assert list(found.rivals) == ["cold"]
    write_json(tmp_path / "base" / "sample.json", {"recipe": {"reference": "another"}})  # ranks are the other's then
    assert from_files(tmp_path / "base", tmp_path / "tuned").tokens["base"] == []
    same_names = from_files(tmp_path / "base", tmp_path / "tuned", [tmp_path / "cold", tmp_path / "cold/records.jsonl"])
    assert len(same_names.rivals) == 2


@pytest.mark.slow
def test_a_model_beside_itself_scores_alike() -> None:
    found = from_models(ModelConfig(), "embedded", Sums("noisy-sum"), problems=20, n=4, max_tokens=64, seed=0)
    assert found.cross_logp is not None
    assert found.cross_logp == pytest.approx([record.logp for record in found.base], abs=1e-3)
    assert [record.ref_logp for record in found.tuned] == pytest.approx([r.logp for r in found.tuned], abs=1e-3)
    assert {name: len(records) for name, records in found.powers.items()} == dict.fromkeys(found.powers, 80)
    verdict = decide(found)
    assert verdict.gain.difference.low < 0 < verdict.gain.difference.high  # other draws of the same model


def test_the_page_of_a_verdict_shows_hostile_text_as_text(tmp_path: Path) -> None:
    world = World.make("lazy", 0, 20)
    base, _ = world.drawn(world.logp_PS, 8, 1)
    tuned, _ = world.drawn(world.taught(), 8, 2)
    hostile = "<script>alert(1)</script>"
    tuned = [replace(record, text=hostile) for record in tuned]
    made = {"command": ["tiltlab", hostile], "versions": {}, "python": "3", "machine": "x", "commit": None}
    found = decide(Evidence(base, tuned))
    assert asdict(found)["outcome"] == found.outcome
    write_verdict_page(found, base, tuned, {}, {"0": hostile}, made, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert hostile not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
