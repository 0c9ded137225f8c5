from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tiltlab.lab.lab import BATCHES, helps, length_bias, reward_path, run_lab, two_lengths
from tiltlab.models.table import TableLanguage
from tiltlab.report.lab import write_lab_page

LANGUAGE = TableLanguage.random(2, spread=0.8)


@pytest.mark.parametrize("seed", range(3))
def test_the_formula_for_lengths_is_what_summing_gives(seed: int) -> None:
    found = length_bias(TableLanguage.random(seed))
    torch.testing.assert_close(torch.tensor(found.formula), torch.tensor(found.enumerated), atol=1e-6, rtol=1e-5)
    assert all(sum(row) == pytest.approx(1) for row in found.enumerated)


def test_low_temperature_and_power_move_the_length_in_opposite_directions() -> None:
    found = two_lengths()
    assert found.power == sorted(found.power, reverse=True)
    assert found.temperature == sorted(found.temperature)
    assert found.power[0] == pytest.approx(found.temperature[0], abs=1e-4)


def test_the_slope_of_sharpening_is_the_covariance_with_log_p() -> None:
    found = helps(LANGUAGE)
    step = 1e-4
    logp = LANGUAGE.sequence_logprobs().detach()[0].double()
    for correct_first, slope in (
        (found.with_likelihood, found.slope_with),
        (found.against_likelihood, found.slope_against),
    ):
        assert (correct_first[1] - correct_first[0]) * slope > 0
    correct = (torch.rand(len(logp), generator=torch.Generator().manual_seed(0)) < 0.3).double()
    numeric = sum(s * float(((1 + s * step) * logp).softmax(-1) @ correct) for s in (1, -1)) / (2 * step)
    covariance = float(logp.exp() @ ((correct - logp.exp() @ correct) * logp))
    assert numeric == pytest.approx(covariance, rel=1e-3)


@pytest.mark.slow
def test_the_closed_form_of_the_tilted_accuracy_is_what_summing_gives_and_training_reaches_it() -> None:
    found = reward_path(LANGUAGE, lambda *_: None)
    assert found.formula == pytest.approx(found.enumerated, abs=1e-6)
    assert found.trained == pytest.approx(found.enumerated, abs=0.03)


@pytest.mark.slow
def test_small_batches_commit_to_wrong_responses_and_large_ones_do_not(tmp_path: Path) -> None:
    found = run_lab(seeds=16, steps=80)
    wrong = dict(zip(BATCHES, found.commitment.wrong(), strict=True))
    assert sum(wrong[batch] for batch in (2, 4, 8)) >= 3
    assert wrong[64] <= 1
    distance = {batch: sum(d) / len(d) for batch, d in zip(BATCHES, found.commitment.tempered_distance, strict=True)}
    assert distance[64] < 0.05
    made = {"command": ["tiltlab", "lab"], "versions": {}, "python": "3", "machine": "m", "commit": None}
    write_lab_page(asdict(found) | {"wrong": found.commitment.wrong()}, made, tmp_path / "lab.html")
    assert (tmp_path / "lab.html").read_text().count('class="plot"') == 6
