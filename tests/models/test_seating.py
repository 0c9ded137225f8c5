from itertools import pairwise

import pytest

from tiltlab.models.seating import Seat, Seats, bucket


@pytest.mark.parametrize("least", [1, 16])
def test_sizes_are_few_and_close(least: int) -> None:
    counts = range(1, 4097)
    sizes = [bucket(count, least) for count in counts]
    for count, size in zip(counts, sizes, strict=True):
        assert count <= size < count + max(least, count / 4 + 1)
        assert size % least == 0
        assert bucket(size, least) == size
    assert all(size <= larger for size, larger in pairwise(sizes))
    assert len(set(sizes)) <= 4 * 12


def seated(taken: list[int], count: int = 16) -> Seats:
    return Seats(count, {seat: Seat(row=seat, prompt=5, limit=20) for seat in taken})


def test_those_on_the_last_seats_move_to_free_ones_further_down() -> None:
    seats = seated([0, 3, 4, 9, 15])
    assert seats.rows == 16
    assert seats.close_up() == ([9, 15], [1, 2])
    assert {seat: taken.row for seat, taken in seats.taken.items()} == {0: 0, 1: 9, 2: 15, 3: 3, 4: 4}
    assert seats.rows == 5
    assert seats.close_up() == ([], [])


def test_rows_are_invited_once_an_eighth_is_free_or_nobody_is_left() -> None:
    assert not seated(list(range(15))).inviting
    assert seated(list(range(14))).inviting
    assert Seats(1).inviting
    assert not seated([0], count=1).inviting


def test_steps_go_no_further_than_any_row_may() -> None:
    seats = Seats(2, {0: Seat(0, prompt=30, limit=4, drawn=2), 1: Seat(1, prompt=8, limit=60, drawn=50)})
    assert seats.steps(16) == 10
    assert seats.steps(4) == 4
    assert seats.columns(10) == bucket(8 + 60, 16)
    assert Seats(1, {0: Seat(0, prompt=30, limit=40, drawn=39)}).columns(16) == bucket(30 + 40, 16)
