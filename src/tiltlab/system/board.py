"""What pieces of work on other machines tell, and whether they are to stop.

Left out on purpose: how it is reached (ray_pool.py has it as an actor beside the driver, which ends with it).
"""

from typing import Any


class Board:
    """News that wait to be taken, which pieces have begun, and whether they are to stop."""

    def __init__(self) -> None:
        self._told: list[tuple[Any, ...]] = []
        self._begun: set[int] = set()
        self._stopping = False

    def expect(self, number: int) -> None:
        """A piece is to be begun, perhaps again."""
        self._begun.discard(number)

    def begin(self, number: int) -> bool:
        """A worker has got a piece. Returns whether it is to be begun: not once pieces are to stop."""
        if not self._stopping:
            self._begun.add(number)
        return not self._stopping

    def tell(self, number: int, *news: Any) -> None:
        """A piece has news."""
        self._told.append(("told", number, *news))

    def take(self) -> list[tuple[Any, ...]]:
        """All news since the last time."""
        told, self._told = self._told, []
        return told

    def is_stopping(self) -> bool:
        """Whether pieces are to save and stop."""
        return self._stopping

    def ask_to_stop(self) -> set[int]:
        """Have all pieces save and stop. Returns those that have begun."""
        self._stopping = True
        return self._begun
