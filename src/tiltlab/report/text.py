"""Figures as text, on the page and on the terminal alike: three digits, and a dash for what nobody knows."""

from tiltlab.stats.metrics import Interval

UNKNOWN = "–"


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits after the point; a dash for NaN."""
    return UNKNOWN if value != value else f"{value:.{digits}f}"


def interval(estimate: Interval | None, digits: int = 3) -> str:
    """Value and interval; the value alone where there is too little for an interval, nothing for None."""
    if estimate is None:
        return ""
    if estimate.low != estimate.low:
        return number(estimate.value, digits)
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def signed(estimate: Interval | None) -> str:
    """Value and interval of a difference, with their signs; else as `interval`."""
    if estimate is None:
        return ""
    if estimate.value != estimate.value:
        return UNKNOWN
    value = f"{estimate.value:+.3f}"
    return value if estimate.low != estimate.low else f"{value} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def length(tokens: float) -> str:
    """A mean length; 0 stands for a length that nobody knows."""
    return number(tokens or float("nan"), 1)
