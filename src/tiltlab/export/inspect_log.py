"""Records as a log of Inspect, which its viewer opens.

The fields are those of inspect_ai's EvalLog (version 2 of the format, read by inspect_ai 0.3): `eval` says what was
run, `results` holds the metrics, `samples` has one entry a response, an epoch being the number of a sample.
"""

import datetime as dt
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltlab.export.tables import Questions
from tiltlab.report.evaluation import figures_of
from tiltlab.storage.files import Json, write_text
from tiltlab.types import UNKNOWN, Record

SCORER = "tiltlab"
"""How the grader is called in the log."""


def write_inspect_log(
    path: Path,
    records: Sequence[Record],
    questions: Questions,
    model: str,
    settings: Mapping[str, Any],
    made: dt.datetime,
) -> None:
    """Write records as one JSON log.

    path: NAME.json.
    model: that drew the responses.
    settings: of the evaluation, as its recipe has them.
    made: when, with a time zone.

    Raises UserError where it cannot be written.
    """
    at, name = made.isoformat(timespec="seconds"), records[0].task
    run = hashlib.sha256(repr((at, name, model, len(records))).encode()).hexdigest()[:22]
    groups = {record.problem for record in records}
    log: Json = {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": run,
            "created": at,
            "task": name,
            "task_id": run,
            "task_version": 0,
            "task_attribs": {},
            "task_args": {},
            "dataset": {"name": name, "samples": len(groups), "sample_ids": sorted(groups), "shuffled": False},
            "model": model,
            "model_args": {},
            "config": {"epochs": max(record.sample for record in records) + 1},
            "packages": {},
            "metadata": dict(settings),
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": _results(records),
        "stats": {"started_at": at, "completed_at": at, "model_usage": {}},
        "samples": [_sample(record, questions, model) for record in records],
    }
    write_text(path, json.dumps(log, ensure_ascii=False, allow_nan=False))


def _results(records: Sequence[Record]) -> Json:
    accuracy = figures_of("", records).accuracy.value
    known = sum(record.reason not in UNKNOWN for record in records)
    metrics = {"accuracy": {"name": "accuracy", "value": accuracy, "params": {}}} if math.isfinite(accuracy) else {}
    score = {"name": SCORER, "scorer": SCORER, "params": {}, "metrics": metrics, "scored_samples": known}
    return {"total_samples": len(records), "completed_samples": len(records), "scores": [score]}


def _sample(record: Record, questions: Questions, model: str) -> Json:
    question, gold = questions.get(record.problem, ("", ""))
    message = {"role": "assistant", "content": record.text, "source": "generate", "model": model}
    choice = {"message": message, "stop_reason": "stop" if record.complete else "max_tokens"}
    usage = {"input_tokens": 0, "output_tokens": record.tokens, "total_tokens": record.tokens}
    known = {"logp": _number(record.logp), "ref_logp": _number(record.ref_logp), "reward": _number(record.reward)}
    return {
        "id": record.problem,
        "epoch": record.sample + 1,
        "input": question,
        "target": gold,
        "messages": [{"role": "user", "content": question}, message],
        "output": {"model": model, "choices": [choice], "usage": usage},
        "scores": {} if record.reason in UNKNOWN else {SCORER: _score(record)},
        "metadata": known | {"reason": record.reason},
    }


def _score(record: Record) -> Json:
    return {
        "value": "C" if record.reason == "correct" else "N" if record.reason == "no_answer" else "I",
        "answer": record.answer,
        "explanation": record.reason,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
