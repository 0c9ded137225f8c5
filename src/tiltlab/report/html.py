"""Templates and figures -> one self-contained page. Autoescape is on, and figures travel as escaped JSON: no text of a
model or a data file can become markup, and none of it works unseen."""

import base64
import math
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tiltlab.report.text import interval, length, number, signed
from tiltlab.system.visible import visible


def render_page(template: str, figures: Mapping[str, go.Figure], **values: Any) -> str:
    """A page, rendered.

    template: its name in this package.
    figures: each is drawn in the element whose id is its name.
    values: what the template asks for.
    """
    drawn = {name: plain(figure.to_plotly_json()) for name, figure in figures.items()}
    return _environment().get_template(template).render(figures=drawn, plotly=get_plotlyjs(), **values)


@cache  # a template is read once
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("tiltlab.report") / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "interval": _unbroken(interval),
        "signed": _unbroken(signed),
        "tokens": length,
    }
    return environment


def _unbroken(shown: Callable[..., str]) -> Callable[..., str]:
    """A filter for intervals that are broken over two lines in front of the brackets at most."""
    return lambda *values: shown(*values).replace(", ", ",\N{NO-BREAK SPACE}")


def _seen(value: Any) -> Any:
    """What a template puts on the page; what it calls safe is ours."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def plain(value: Any) -> Any:
    """A value as JSON can hold it, with nothing unseen in its text.

    JSON has no words for NaN and infinity: they become null, a gap in Plotly's eyes.
    """
    match value:
        case {"bdata": str(), "dtype": str()}:
            array = _unpacked(value)
            return value if np.isfinite(array).all() else plain(array.tolist())
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case np.ndarray():
            return plain(value.tolist())
        case np.generic():
            return plain(value.item())
        case str():
            return visible(value)
        case float():
            return value if math.isfinite(value) else None
    return value


def _unpacked(packed: Mapping[str, str]) -> np.ndarray[Any, Any]:
    """An array out of Plotly's base64 form, whose shape is there only where it has several dimensions."""
    array = np.frombuffer(base64.b64decode(packed["bdata"]), dtype=packed["dtype"])
    return array.reshape([int(size) for size in packed["shape"].split(",")]) if "shape" in packed else array
