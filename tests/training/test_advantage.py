import torch

from tiltlab.training.advantage import group_normalized, leave_one_out

NAN = float("nan")


def test_baseline_is_the_mean_of_the_others() -> None:
    torch.testing.assert_close(leave_one_out(torch.tensor([[1.0, 2.0, 6.0]])), torch.tensor([[-3.0, -1.5, 4.5]]))


def test_a_response_that_does_not_count_leaves_its_group() -> None:
    advantages = leave_one_out(torch.tensor([[1.0, NAN, 4.0]]))
    torch.testing.assert_close(advantages, torch.tensor([[-3.0, 0.0, 3.0]]))


def test_groups_too_small_to_compare_carry_no_gradient() -> None:
    assert leave_one_out(torch.tensor([[NAN, 5.0], [NAN, NAN]])).abs().sum() == 0


def test_large_scores_keep_their_differences() -> None:
    advantages = leave_one_out(torch.tensor([[-10000.0, -10000.5, -9999.5]]))
    torch.testing.assert_close(advantages, torch.tensor([[0.0, -0.75, 0.75]]))


def test_normalising_divides_by_the_spread_and_leaves_flat_groups_at_zero() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [7.0, 7.0, 7.0], [1.0, NAN, 3.0]])
    advantages = group_normalized(scores)
    torch.testing.assert_close(advantages[0], leave_one_out(scores)[0])  # its standard deviation is 1
    assert advantages[1].abs().sum() == 0
    torch.testing.assert_close(advantages[2], torch.tensor([-2.0, 0.0, 2.0]) / 2**0.5)
