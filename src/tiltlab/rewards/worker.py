"""What a worker does for a reward of the user's own: find the function, call it, and send back plain numbers.

Left out on purpose: objects of the function's own. Whatever it returned, only floats, None and `Failed` leave here, so
that nothing of it is unpickled elsewhere.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

from tiltlab.errors import said
from tiltlab.system.guarded_calls import Failed

Value = float | None | Failed
"""What a function made of one response."""

Arguments = Mapping[str, list[Any]]
"""prompts, completions and the columns, each with one entry a response."""


def load_error(path: str) -> str | None:
    """Why the function of a path ("package.module:function") cannot be loaded; None where it can."""
    try:
        function = _function(path)
    except (Exception, SystemExit) as error:  # the module is the user's: it may raise anything, or exit
        return said(error)
    return None if callable(function) else f"{path.partition(':')[2]} is not a function"


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def values_of(path: str, arguments: Arguments) -> list[Value] | Failed:
    """The function's value for every response; `Failed` where it raised, or did not return one each.

    path: of the function, "package.module:function".
    arguments: what it is called with; must hold the column `id`.

    A value is a float, None, or `Failed`: nothing else of what the function returned leaves its worker.
    """
    try:
        returned = _function(path)(**arguments)
        usable = isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping)
        values = list(returned) if usable else None
    except (Exception, SystemExit) as error:
        return Failed("error", f"raised {said(error)}")
    if values is None:
        return Failed("error", f"returned a {type(returned).__name__}; it must return a list of numbers")
    ids = arguments["id"]
    if len(values) != len(ids):
        counts = f"{len(values)} values for {len(ids)} responses"
        return Failed("error", f"returned {counts}; it must return one each")
    return [_value(value, problem) for value, problem in zip(values, ids, strict=True)]


def _value(value: Any, problem: str) -> Value:
    if value is None:
        return None
    try:
        number = _finite(value)
        shown = "" if number is not None else " ".join(repr(value).split())[:60]
    except Exception as error:
        number, shown = None, f"a {type(value).__name__} that raised {said(error)}"
    if number is not None:
        return number
    wanted = "return a finite number, or None for a response that cannot be graded"
    return Failed("error", f"returned {shown} for problem {problem}; {wanted}")


def _finite(value: Any) -> float | None:
    """A finite number, or None for anything else. True and False are 1 and 0."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # of numpy or torch
    if not isinstance(value, Real | Decimal):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except (OverflowError, ValueError):  # an int beyond all floats; Decimal's signalling NaN
        return None
