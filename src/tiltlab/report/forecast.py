"""A forecast as one HTML page that needs no network, and in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiltlab.forecast.forecast import Forecast
from tiltlab.forecast.frontier import sharpening_path
from tiltlab.report.frontier import Reached, frontier
from tiltlab.report.html import render_page
from tiltlab.report.text import interval, signed
from tiltlab.stats.metrics import Interval
from tiltlab.storage.files import write_text


def in_words(forecast: Forecast) -> str:
    """The local slope of sharpening, and how far the paths are supported."""
    slope = forecast.slope
    way = "helps" if slope.low > 0 else "hurts" if slope.high < 0 else "may help or hurt"
    said = f"a little sharpening {way} (slope of accuracy in alpha {signed(slope)} at alpha 1). "
    path = sharpening_path(forecast)
    if not path:
        why = next(p.why for p in forecast.points if p.alpha == 1)
        return f"{said}Nothing more is told: {why}."
    best = max(path, key=lambda p: p.accuracy.value if p.accuracy else 0.0)
    said += f"Best on the sharpening path, supported to alpha {path[-1].alpha:g}: {interval(best.accuracy)} at alpha "
    said += f"{best.alpha:g}. "
    rewarded = [p for p in forecast.points if p.supported and p.alpha == 1 and p.beta is not None]
    if rewarded:
        last = rewarded[-1]
        return (
            said + f"A reward reaches {interval(last.accuracy)} at beta {last.beta:g}, for {interval(last.kl, 2)} nats."
        )
    needed = next((p.samples_needed for p in forecast.points if p.alpha == 1 and p.beta is not None), None)
    return said + f"The reward path is not supported; at least {needed} samples a problem would begin to."


def write_forecast_page(forecast: Forecast, made: Mapping[str, Any], path: Path) -> None:
    """Write the page. `made`: how (tiltlab.system.provenance). Raises UserError where it cannot be written."""
    base = next((p for p in forecast.points if p.alpha == 1 and p.beta is None), None)
    nowhere = Interval(0.0, 0.0, 0.0)
    here = [Reached("base", base.accuracy, nowhere, "#6b7280")] if base and base.accuracy else []
    page = render_page(
        "forecast.html.j2",
        {"frontier": frontier(forecast, here)},
        forecast=forecast,
        said=in_words(forecast),
        made=made,
    )
    write_text(path, page)
