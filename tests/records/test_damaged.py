"""Files that are damaged, or of no program that is known: one line that names file and row."""

import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tests.records import writers
from tests.records.study import drawn, written_task
from tiltlab.errors import UserError
from tiltlab.evaluation.outside import Asked
from tiltlab.records.opening import Reading
from tiltlab.verdict.inputs import base_records

BASE = drawn("only the format learnt")[0][:16]
VERL, NEMO, OPEN, PRIME, OPENAI, LM = (
    writers.verl_rows(BASE),
    writers.nemo_rl_rows(BASE),
    writers.open_instruct_rows(BASE),
    [writers.prime_rl_row(record) for record in BASE],
    writers.openai_rows(BASE),
    writers.lm_eval_rows(BASE),
)
EXPORTED = writers.exported_rows(BASE)
Damage = Callable[[Path], Path]


def rows(name: str, given: list[dict[str, Any]], at: int, **changed: Any) -> Damage:
    """A JSONL file, of which one line has other values; a value `...` is taken away."""

    def write(folder: Path) -> Path:
        made = [dict(row) for row in given]
        made[at - 1] = {key: value for key, value in (made[at - 1] | changed).items() if value is not ...}
        return writers.lines(folder / name, made)

    return write


def raw(name: str, data: bytes) -> Damage:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return folder / name

    return write


def text_of(given: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in given)


def cut(write: writers.Writer, share: float) -> Damage:
    def damaged(folder: Path) -> Path:
        path = write(BASE, folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        return path

    return damaged


def zipped(**entries: Any) -> Damage:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / "log.eval", "w", zipfile.ZIP_DEFLATED) as log:
            for name, entry in entries.items():
                log.writestr(name.replace("__", "/"), entry if isinstance(entry, bytes) else json.dumps(entry))
        return folder / "log.eval"

    return write


def table(**columns: Any) -> Damage:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "completions_00001.parquet")
        return folder / "completions_00001.parquet"

    return write


def traced(**changed: Any) -> list[dict[str, Any]]:
    """Episodes, of which the second has another node."""
    made = json.loads(json.dumps(PRIME))
    made[1]["traces"][0]["nodes"][2] |= changed
    return made


def chosen(**changed: Any) -> list[dict[str, Any]]:
    made = json.loads(json.dumps(OPENAI))
    made[1]["response"]["body"]["choices"][0] |= changed
    return made


SAMPLE = writers.inspect_sample(BASE[0])

DAMAGED: dict[str, tuple[Damage, str]] = {
    "an empty file": (raw("a.jsonl", b""), "a.jsonl is empty"),
    "blank lines alone": (raw("a.jsonl", b"\n \r\n\n"), "a.jsonl is empty"),
    "a pickle": (raw("a.jsonl", pickle.dumps([1, 2, "x"] * 50)), "a.jsonl line 1 cannot be read as UTF-8"),
    "a picture": (raw("a.jsonl", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "a.jsonl line 1 cannot be read as UTF-8"),
    "UTF-16": (raw("a.jsonl", text_of(VERL).encode("utf-16")), "a.jsonl line 1 cannot be read as UTF-8"),
    "a bad byte on line 3": (
        raw("a.jsonl", text_of(VERL[:2]).encode() + b'{"input": "\xff"}\n'),
        "a.jsonl line 3 cannot be read as UTF-8",
    ),
    "prose": (raw("a.jsonl", b"Once upon a time\n"), "a.jsonl line 1 is not JSON"),
    "half a line at the end": (raw("0.jsonl", text_of(VERL).encode()[:-40]), "0.jsonl line 16 is not JSON"),
    "a bracket too few": (raw("a.json", b'[{"input": "x", "output": "y", "score": 1}'), "a.json is not JSON"),
    "a number for a file": (raw("a.json", b"42"), "a.json holds a int, and no rows"),
    "a list of lists": (raw("a.json", b"[[1, 2]]"), "a.json row 1 holds a list"),
    "a list for a line": (raw("a.jsonl", text_of(VERL[:1]).encode() + b"[1]\n"), "a.jsonl line 2 holds a list"),
    "nested too deep": (raw("a.jsonl", b"[" * 100_000), "a.jsonl line 1 is not JSON"),
    "a number of 5000 digits": (
        raw("a.jsonl", b'{"input": "x", "output": "y", "score": ' + b"9" * 5000 + b"}\n"),
        "a.jsonl line 1",
    ),
    "keys that nobody knows": (raw("a.jsonl", b'{"a": 1, "b": 2}\n'), "a.jsonl is of no format that is known"),
    "a CSV": (raw("a.jsonl", b"prompt,response\n1,2\n"), "a.jsonl line 1 is not JSON"),
    "two formats in one file": (
        raw("a.jsonl", text_of(VERL[:2] + LM[:1]).encode()),
        "a.jsonl line 3 has no output",
    ),
    "verl: no prompt": (rows("0.jsonl", VERL, 3, input=...), "0.jsonl line 3 has no input"),
    "verl: a list for a response": (rows("0.jsonl", VERL, 3, output=[1]), "0.jsonl line 3: output cannot hold 1"),
    "verl: a text for a score": (rows("0.jsonl", VERL, 3, score="good"), "0.jsonl line 3: score cannot be 'good'"),
    "verl: an infinite score": (rows("0.jsonl", VERL, 3, score=float("inf")), "0.jsonl line 3: score cannot be inf"),
    "verl: half a step": (rows("0.jsonl", VERL, 2, step=1.5), "0.jsonl line 2: step cannot be 1.5"),
    "verl, exported: half a token id": (
        rows("0.jsonl", EXPORTED, 2, ids="3 x 4"),
        "0.jsonl line 2: ids cannot be '3 x 4'; it must be token ids",
    ),
    "verl, exported: log p above 0": (rows("0.jsonl", EXPORTED, 2, logp=1.0), "0.jsonl line 2: logp cannot be 1.0"),
    "verl, exported: ended perhaps": (
        rows("0.jsonl", EXPORTED, 3, complete=0.5),
        "0.jsonl line 3: complete cannot be 0.5; it must be true or false",
    ),
    "lm-eval: given choices": (
        rows("a.jsonl", LM, 1, resps=[[["-1.5", "False"]], [["-2.5", "False"]]]),
        "a.jsonl line 1 holds no response",
    ),
    "lm-eval: a document twice": (
        raw("a.jsonl", text_of([LM[0], LM[0]]).encode()),
        "a.jsonl line 2 is document '0' by filter 'strict-match', as",
    ),
    "lm-eval: no prompt": (rows("a.jsonl", LM, 2, doc={}, arguments=[]), "a.jsonl line 2 has no prompt"),
    "NeMo-RL: one message": (rows("a.jsonl", NEMO, 2, content=[["x"]]), "a.jsonl line 2 has no prompt and response"),
    "NeMo-RL: fewer log p than tokens": (
        rows("a.jsonl", NEMO, 2, generation_logprobs=[[-1.0]]),
        "a.jsonl line 2: generation_logprobs holds",
    ),
    "open-instruct: text for tokens": (
        rows("a.jsonl", OPEN, 2, response_tokens="x"),
        "line 2: response_tokens cannot be",
    ),
    "open-instruct: a token below 0": (rows("a.jsonl", OPEN, 2, response_tokens=[-1]), "line 2: response_tokens[0]"),
    "open-instruct: log p above 0": (rows("a.jsonl", OPEN, 2, logprobs=[0.5]), "line 2: logprobs[0] cannot be 0.5"),
    "prime-rl: a loop of nodes": (
        raw("a.jsonl", text_of(traced(parent=2)).encode()),
        "line 2: nodes[2] cannot have the parent 2",
    ),
    "prime-rl: a node without a message": (raw("a.jsonl", text_of(traced(message=None)).encode()), "line 2: nodes[2]"),
    "prime-rl: log p in words": (raw("a.jsonl", text_of(traced(logprobs=["x"])).encode()), "line 2: logprobs[0]"),
    "OpenAI: every request failed": (
        raw("a.jsonl", b'{"custom_id": "1", "response": null, "error": {"message": "x"}}\n'),
        "holds no response (the first row without one: ",
    ),
    "OpenAI: a choice without a message": (
        raw("a.jsonl", text_of(chosen(message={})).encode()),
        "a.jsonl line 2 has no response",
    ),
    "OpenAI: a number for a reason": (
        raw("a.jsonl", text_of(chosen(finish_reason=1)).encode()),
        "a.jsonl line 2: finish_reason cannot be 1",
    ),
    "TRL: a truncated Parquet": (cut(writers.trl, 0.8), "completions_00500.parquet cannot be read as Parquet"),
    "TRL: numbers for completions": (
        table(step=[1], prompt=["x"], completion=[1.5], reward=[1.0], advantage=[0.0]),
        "completions_00001.parquet row 1: completion cannot be 1.5",
    ),
    "TRL: null for a prompt": (
        table(step=[1, 1], prompt=["x", None], completion=["a", "b"], reward=[1.0, 0.0], advantage=[0.0, 0.0]),
        "completions_00001.parquet row 2: prompt cannot be None",
    ),
    "TRL: more rows than anybody reads": (
        table(step=pyarrow.nulls(5_000_001, pyarrow.int8())),
        "has 5000001 rows",
    ),
    "a Parquet by another name": (
        lambda folder: writers.trl(BASE, folder).rename(folder / "a.jsonl"),
        "is a Parquet file; call it a.parquet",
    ),
    "Inspect: a truncated zip": (cut(writers.inspect_eval, 0.7), "plums.eval cannot be read as a log of Inspect"),
    "Inspect: a zip of something else": (
        zipped(**{"word__document.xml": b"<x/>"}),
        "log.eval is a zip without samples",
    ),
    "Inspect: a zip bomb": (
        zipped(**{"samples__1_epoch_1.json": b"[" + b" " * 2**26 + b"]"}),
        "log.eval samples/1_epoch_1.json unpacks to more than",
    ),
    "Inspect: a sample of no object": (
        zipped(**{"samples__1_epoch_1.json": [1]}),
        "log.eval samples/1_epoch_1.json holds a list",
    ),
    "Inspect: a sample twice": (
        zipped(**{"samples__1_epoch_1.json": SAMPLE, "samples__1_epoch_2.json": SAMPLE}),
        "samples/1_epoch_2.json is sample 0 of problem",
    ),
    "Inspect: an attachment that is not there": (
        zipped(**{"samples__1_epoch_1.json": SAMPLE | {"attachments": {}}}),
        "samples/1_epoch_1.json refers to 'attachment://abc'",
    ),
    "Inspect: a score without a value": (
        zipped(**{"samples__1_epoch_1.json": SAMPLE | {"scores": {"match": {}}}}),
        "samples/1_epoch_1.json: scores.match cannot be",
    ),
    "Inspect: a sample in chunks": (
        zipped(**{"samples__1_epoch_1__sample.json": SAMPLE}),
        "samples/1_epoch_1/sample.json is a part of a sample",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_foreign_file_is_one_line_that_names_file_and_row(name: str, tmp_path: Path) -> None:
    write, told = DAMAGED[name]
    path = write(tmp_path / "in")
    with pytest.raises(UserError) as raised:
        base_records(path, Asked(Reading(), written_task(tmp_path)))
    assert len(raised.value.lines) == 1
    assert told in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_there_are_forty_of_them() -> None:
    assert len(DAMAGED) >= 40


VALUES = (
    None,
    True,
    -1,
    1.5,
    "x",
    "",
    [],
    {},
    [None],
    [1, "x"],
    {"a": 1},
    float("nan"),
    10**30,
    "\ud800",
    [[[]]],
    [{}],
)


def mutated(value: Any, luck: random.Random) -> Any:
    """A value with something else somewhere in it, or without something."""
    if not value or not isinstance(value, dict | list) or luck.random() < 0.2:
        return luck.choice(VALUES)
    made: Any = value.copy()
    at = luck.choice(list(value)) if isinstance(value, dict) else luck.randrange(len(value))
    if luck.random() < 0.15:
        del made[at]
    else:
        made[at] = mutated(value[at], luck)
    return made


def refused(path: Path) -> list[str]:
    """The lines that refuse a file; none where it is read."""
    try:
        base_records(path, Asked(grades="theirs"))
    except UserError as error:
        return error.lines
    return []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("given", [VERL, NEMO, OPEN, PRIME, OPENAI, LM, writers.inspect_log(BASE)["samples"]])
def test_whatever_stands_in_a_row_it_is_read_or_refused_in_one_line(
    given: list[dict[str, Any]], seed: int, tmp_path: Path
) -> None:
    luck = random.Random(seed)
    for at in (0, 0, 0, 5, 5, 5):
        made = [mutated(row, luck) if i == at else row for i, row in enumerate(given)]
        if "epoch" in given[1]:
            path = raw("a.json", json.dumps({"eval": {"task": "t"}, "samples": made}).encode())(tmp_path)
        else:
            path = raw("a.jsonl", "".join(json.dumps(row) + "\n" for row in made).encode())(tmp_path)
        assert len(refused(path)) <= 1


@pytest.mark.parametrize("write", [writers.trl, writers.inspect_eval, writers.inspect_zstandard])
def test_whatever_bytes_are_damaged_it_is_read_or_refused_in_one_line(write: writers.Writer, tmp_path: Path) -> None:
    path, luck = write(BASE, tmp_path), random.Random(0)
    whole = path.read_bytes()
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(luck.choice((1, 3, 20))):
            data[luck.choice((luck.randrange(len(data)), -1 - luck.randrange(1500)))] = luck.randrange(256)
        path.write_bytes(data[: luck.choice((len(data), len(data), luck.randrange(len(data))))])
        assert len(refused(path)) <= 1
