"""Figures as text, on the page and on the terminal alike: three digits, and a dash for what nobody knows."""

from tiltlab.stats.metrics import Interval

UNKNOWN = "–"


def number(value: float, digits: int = 3) -> str:
    return UNKNOWN if value != value else f"{value:.{digits}f}"


def interval(found: Interval | None, digits: int = 3) -> str:
    """Value and interval; the value alone where there is too little for an interval."""
    if found is None:
        return ""
    if found.low != found.low:
        return number(found.value, digits)
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def signed(found: Interval | None) -> str:
    """As `interval`, of a difference."""
    if found is None:
        return ""
    if found.value != found.value:
        return UNKNOWN
    value = f"{found.value:+.3f}"
    return value if found.low != found.low else f"{value} [{found.low:+.3f}, {found.high:+.3f}]"


def length(tokens: float) -> str:
    """A mean length; 0 stands for a length that nobody knows."""
    return number(tokens or float("nan"), 1)
