"""Both families of sharpening: which explains a gain, how far each was followed, and what more samples add."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.test_report import made_study
from tests.verdict.test_parts import HALF, PROBLEMS, responses, tuned
from tiltlab.report.findings import findings
from tiltlab.report.load import load_study
from tiltlab.storage.files import write_json
from tiltlab.storage.records import write_records
from tiltlab.types import Record
from tiltlab.verdict.inputs import from_files
from tiltlab.verdict.pass_curves import pass_curves
from tiltlab.verdict.verdict import Evidence, Verdict, decide

MISTAKE = "8"


def likelier(records: Sequence[Record], nats: float) -> list[Record]:
    return [replace(record, ref_logp=record.ref_logp + nats) for record in records]


def base(n: int = 64) -> list[Record]:
    """Three of ten are right, and all who err make the same mistake: neither likelihood nor a vote helps."""
    return responses(0, [0.3] * PROBLEMS, mistake=MISTAKE, n=n)


def test_beyond_sharpening_is_beyond_both_families() -> None:
    after = tuned(responses(1, [0.9] * PROBLEMS, mistake=MISTAKE, n=64))
    verdict = decide(Evidence(base(), after))
    assert verdict.outcome == "beyond sharpening"
    assert "Of base responses as likely as the tuned model's, 0.2" in verdict.why or "0.3" in verdict.why
    assert verdict.sharpened is not None
    for family in (verdict.sharpened.likelihood, verdict.sharpened.answers):
        assert family is not None
        assert family.far_enough
        assert family.rest.low > 0.4


def test_what_is_likelier_than_all_samples_was_not_followed() -> None:
    """Log p spreads over 25 nats: of 64 samples the likeliest is some 60 above the mean."""
    after = likelier(tuned(responses(1, [0.9] * PROBLEMS, mistake=MISTAKE, n=64)), 90)
    verdict = decide(Evidence(base(), after))
    assert verdict.outcome == "cannot tell"
    assert "the tuned model's responses are likelier than the likeliest of 64" in verdict.why
    assert verdict.needs is not None
    assert "at a guess" in verdict.needs
    colder = likelier(responses(2, [0.3] * PROBLEMS, mistake=MISTAKE, n=64), 95)
    assert decide(Evidence(base(), after, powers={"power SMC 1.2": colder})).outcome == "beyond sharpening"


def test_where_votes_do_not_agree_as_the_tuned_model_does_they_were_not_followed() -> None:
    """The right answer and the mistake are nearly as frequent: who wins the vote of 4 is anybody's guess."""
    before = responses(0, [0.48] * PROBLEMS, mistake=MISTAKE, n=8)
    after = tuned(responses(1, [0.99] * PROBLEMS, mistake=MISTAKE, n=8))
    verdict = decide(Evidence(before, after))
    assert verdict.outcome == "cannot tell"
    assert "its answers agree more than those of" in verdict.why


def test_what_the_likeliest_are_is_of_its_likelihood() -> None:
    """Right ones are 30 nats likelier; every wrong one makes the same mistake, which a vote would find."""
    before = [replace(r, ref_logp=r.ref_logp + 30 * (r.reason == "correct")) for r in base()]
    before = [replace(r, logp=r.ref_logp) for r in before]
    after = []
    for p in range(PROBLEMS):
        group = [r for r in before if r.problem == str(p)]
        after += [replace(max(group[i : i + 4], key=lambda r: r.ref_logp), sample=i) for i in range(0, 64, 4)]
    verdict = decide(Evidence(before, after))
    assert (verdict.outcome, verdict.by) == ("sharpening explains it", "likelihood")
    assert "of its likelihood (" in verdict.why


def test_free_text_is_judged_by_likelihood_alone() -> None:
    def told(records: Sequence[Record]) -> list[Record]:
        return [
            replace(r, answer=f"because {r.answer} follows from all that was said above, in sample {r.sample}")
            for r in records
        ]

    after = tuned(responses(1, [0.9] * PROBLEMS, mistake=MISTAKE, n=64))
    verdict = decide(Evidence(told(base()), told(after)))
    assert verdict.sharpened is not None
    assert verdict.sharpened.answers is None
    assert verdict.outcome == "beyond sharpening"


def test_an_arm_that_votes_is_a_sharpening_of_the_answers() -> None:
    before, after = base(), tuned(responses(1, [0.9] * PROBLEMS, mistake=MISTAKE, n=64))
    voted = responses(2, [0.9] * PROBLEMS, mistake=MISTAKE, n=64)
    verdict = decide(Evidence(before, after, voted={"majority of 500": voted}))
    assert (verdict.outcome, verdict.by) == ("sharpening explains it", "answers")
    assert "of its answers (majority of 500 would have had 0.9" in verdict.why


def test_majority_counts_as_a_rival_in_a_study_and_among_files(tmp_path: Path) -> None:
    arms = [{"arm": "base"}, {"arm": "majority", "of": 4}, {"arm": "task_reward"}]
    verdict = findings(load_study(made_study(tmp_path / "run", arms=arms)), "lazy-sum").verdicts["task reward"]
    assert verdict.sharpened is not None
    assert verdict.sharpened.answers is not None
    assert verdict.sharpened.likelihood is None
    before, after = base(4), tuned(responses(1, HALF, n=4))
    for name, records, arm in (("base", before, "base"), ("tuned", after, "base"), ("vote", before, "majority")):
        write_records(tmp_path / name / "records.jsonl", records)
        write_json(tmp_path / name / "sample.json", {"recipe": {"sampler": {"arm": arm}}, "questions": {}})
    examined = from_files(tmp_path / "base", tmp_path / "tuned", [tmp_path / "vote", tmp_path / "base"])
    assert (list(examined.voted), list(examined.rivals)) == (["vote"], ["base"])


def test_a_verdict_is_plain_json_with_its_parts() -> None:
    verdict = decide(Evidence(base(8), tuned(responses(1, [0.9] * PROBLEMS, n=8))))
    again = json.loads(json.dumps(asdict(verdict)))
    assert set(again["parts"]) >= {"ends", "read", "sharpened", "taught"}
    assert again["sharpened"]["likelihood"]["followed"]["at"]
    assert again["by"] == verdict.by


def of_shares(right_P: Sequence[float], n: int, seed: int = 0) -> list[Record]:
    return responses(seed, right_P, n=n)


def test_the_sharpening_tax_is_that_of_the_curve() -> None:
    n, share = 32, 0.3
    curves = pass_curves(of_shares([share] * 400, n), of_shares([0.0, 1.0] * 200, n))
    assert curves is not None
    assert curves.most == n
    passes = 1 - (1 - share) ** np.arange(1, n + 1)
    exact = (passes[-1] - passes[:-1]).mean() / (1 - passes[0])
    assert curves.base_tax.low - 0.01 < exact < curves.base_tax.high + 0.01
    assert curves.base_tax.low < curves.base_tax.value < curves.base_tax.high
    assert curves.tuned_tax.value == pytest.approx(0.0)


def test_where_the_base_overtakes_has_an_interval() -> None:
    """.6 of problems are always right; the base is right in .3 of samples: 1 - .7^k is above .6 from k = 2.57 on."""
    always = [1.0] * 240 + [0.0] * 160
    curves = pass_curves(of_shares([0.3] * 400, 16), of_shares(always, 16))
    assert curves is not None
    crossing = curves.crossing
    assert crossing.k is not None
    assert crossing.low is not None
    assert crossing.high is not None
    assert crossing.low < 2.57 < crossing.high
    assert crossing.high - crossing.low < 1
    never = pass_curves(of_shares(always, 16), of_shares([1.0] * 400, 16))
    assert never is not None
    assert (never.crossing.k, never.crossing.low, never.crossing.high) == (None, None, None)


def test_one_sample_tells_nothing_of_more() -> None:
    assert pass_curves(of_shares(HALF, 1), of_shares(HALF, 1)) is None
    verdict: Verdict = decide(Evidence(of_shares(HALF, 1), tuned(of_shares([1.0] * PROBLEMS, 1))))
    assert verdict.outcome == "cannot tell"
    assert verdict.sharpened is None
