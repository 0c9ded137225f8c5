"""How long pieces of work last that are done some at a time. Pure."""

from collections.abc import Iterable
from heapq import heapreplace


def lasting(seconds: Iterable[float], at_a_time: int) -> float:
    """Seconds until all is done, each piece begun as soon as there is room for it.

    seconds: of each piece, in the order in which they are begun.
    """
    free = [0.0] * at_a_time
    for one in seconds:
        heapreplace(free, free[0] + one)
    return max(free)
