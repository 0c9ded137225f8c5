import math

import numpy as np
import pytest
import torch

from tiltlab.objective import (
    EntropyMinimization,
    Objective,
    entropy_minimization,
    from_paper,
    sharpening,
    task_reward,
    tempered,
    tilted,
)


def test_named_regimes_are_values_of_the_weights() -> None:
    assert task_reward() == Objective(reward=1)
    assert sharpening() == Objective(sharpen=1)
    assert tempered(4) == Objective(sharpen=3, kl=1)
    assert tilted(0.1, alpha=2) == Objective(reward=1, sharpen=0.1, kl=0.1)


def test_tempered_log_target_is_alpha_log_p() -> None:
    logp = np.log([0.5, 0.3, 0.2])
    for alpha in (0.5, 1, 1.25, 4):
        np.testing.assert_allclose(tempered(alpha).log_target(math.nan, logp), alpha * logp)


def test_tilted_log_target_is_alpha_log_p_plus_reward_over_beta() -> None:
    logp, reward = np.log([0.5, 0.5]), np.array([0.0, 1.0])
    np.testing.assert_allclose(tilted(0.1, alpha=2).log_target(reward, logp), 2 * logp + reward / 0.1)


def test_score_at_the_optimum_is_the_same_for_every_response() -> None:
    """At pi*, R = w r + s l + beta (l - log pi*) is beta log Z everywhere: an optimum gives no advantage."""
    logp, reward = torch.tensor([0.6, 0.3, 0.1]).log(), torch.tensor([0.0, 1.0, 0.3])
    for objective in (tempered(0.5), tempered(4), tilted(0.1), tilted(1, alpha=2)):
        target = objective.log_target(reward, logp)
        score = objective.score(reward, logp, target.log_softmax(-1))
        torch.testing.assert_close(score, objective.kl * target.logsumexp(-1).expand(3))


def test_a_term_of_weight_zero_never_spreads_nan() -> None:
    assert sharpening().score(math.nan, -2.0, -1.0) == -2.0
    assert task_reward().score(1.0, math.nan, math.nan) == 1.0
    assert tempered(2).score(math.nan, -2.0, -3.0) == -2.0 + (-2.0 + 3.0)


def test_length_options_normalise_the_sharpening_term_only() -> None:
    for length, expected in (("sum", -6.0), ("mean", -2.0), (0.5, -6.0 / math.sqrt(3))):
        terms = Objective(sharpen=1, kl=1, length=length).terms(0.0, -6.0, -5.0, tokens=3)  # type: ignore[arg-type]
        assert terms.sharpen == pytest.approx(expected)
        assert terms.kl == -1.0


@pytest.mark.parametrize(
    ("alpha", "beta_inv", "mode", "expected"),
    [
        (1, 0, "optimization", sharpening()),
        (0, 1, "optimization", task_reward()),
        (4, 0, "sampling", tempered(4)),
        (1, 100, "sampling", tilted(0.01)),
        (1.25, 10000, "sampling", tilted(1e-4, alpha=1.25)),
    ],
)
def test_the_papers_grid_maps_one_to_one(alpha: float, beta_inv: float, mode: str, expected: Objective) -> None:
    assert from_paper(alpha, beta_inv, mode) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Objective(reward=1, kl=-0.1),
        lambda: Objective(reward=math.nan),
        lambda: Objective(),
        lambda: tilted(0),
        lambda: tilted(-1),
        lambda: Objective(reward=1, length="median"),  # type: ignore[arg-type]
        lambda: sharpening().log_target(0.0, -1.0),
    ],
)
def test_what_makes_no_objective_is_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"beta|finite|needs|length"):
        make()


def test_entropy_minimization_scores_a_response_by_its_own_log_probability() -> None:
    logp, policy = torch.tensor([0.6, 0.3, 0.1]).log(), torch.tensor([0.2, 0.2, 0.6]).log()
    objective = entropy_minimization(0.5)
    assert (objective.reward, objective.sharpen, objective.kl) == (0, 0.5, -0.5)
    torch.testing.assert_close(objective.score(math.nan, logp, policy), 0.5 * policy)


def test_a_negative_beta_is_entropy_minimizations_alone_and_has_no_density_for_an_optimum() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Objective(sharpen=1, kl=-1)
    for weight in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="weight of entropy minimisation"):
            entropy_minimization(weight)
    with pytest.raises(ValueError, match="weight of entropy minimisation"):
        EntropyMinimization(sharpen=1, kl=-2)
    with pytest.raises(ValueError, match="no optimum with a density"):
        entropy_minimization().log_target(0.0, np.log([0.5, 0.5]))
