"""Templates and figures -> one self-contained page. Autoescape is on, and figures travel as escaped JSON: no text of a
model or a data file can become markup."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from tiltlab.metrics import Interval


def render_page(template: str, figures: Mapping[str, go.Figure], **values: Any) -> str:
    """Render a template of this package. Each figure is drawn in the element whose id is its name."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (files("tiltlab.report") / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "signed": signed}
    plain = {name: figure.to_plotly_json() for name, figure in figures.items()}
    return environment.get_template(template).render(figures=plain, plotly=get_plotlyjs(), **values)


def number(value: float, digits: int = 3) -> str:
    return "–" if value != value else f"{value:.{digits}f}"


def interval(found: Interval, digits: int = 3) -> str:
    if found.low != found.low:
        return number(found.value, digits)
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def signed(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
