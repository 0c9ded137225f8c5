"""A forecast and a verdict, each with the files that tell of it."""

import json
from dataclasses import asdict
from pathlib import Path

from tiltlab.evaluation.outside import Asked
from tiltlab.forecast.forecast import Forecast, base_forecast
from tiltlab.report.forecast import write_forecast_page
from tiltlab.report.verdict import write_verdict_page
from tiltlab.storage.files import write_json, write_text
from tiltlab.storage.records import write_records
from tiltlab.system.provenance import provenance
from tiltlab.verdict.inputs import Examined, base_records
from tiltlab.verdict.verdict import Verdict, decide


def write_forecast(base: Path, out: Path, asked: Asked | None = None) -> Forecast:
    """The forecast from the records of a base, and forecast.json and forecast.html of it in a folder.

    base: records.jsonl, a file of another program, or the folder that holds it.
    out: the folder to write to.
    asked: how files of other programs are to be taken.
    """
    result, made = base_forecast(base_records(base, asked)), provenance()
    write_json(out / "forecast.json", asdict(result) | {"made": made})
    write_forecast_page(result, made, out / "forecast.html")
    return result


def write_verdict(examined: Examined, out: Path, seed: int, *, drawn: bool) -> Verdict:
    """The verdict, and verdict.json and verdict.html of it in a folder.

    examined: what it is told from.
    out: the folder to write to.
    seed: of the bootstrap.
    drawn: whether the responses were drawn for it; then they are written too.
    """
    verdict, made = decide(examined, seed=seed), provenance()
    if drawn:
        write_records(out / "records-base.jsonl", examined.base)
        write_records(out / "records-tuned.jsonl", examined.tuned)
        for name, lines in examined.tokens.items():
            write_text(out / f"tokens-{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_json(out / "verdict.json", asdict(verdict) | {"made": made})
    powers = {name: (examined.powers[name], kls) for name, kls in examined.power_kls.items()}
    page = out / "verdict.html"
    write_verdict_page(verdict, examined.base, examined.tuned, examined.tokens, examined.questions, made, page, powers)
    return verdict
