"""Files as other programs write them, made from records, with the names and nesting of each reader's docstring."""

import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import groupby
from math import isnan
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.records.study import gold, question
from tiltlab.types import Record

Rows = list[dict[str, Any]]


def chat(name: str) -> str:
    """A prompt in the words that a chat template leaves behind, after an example that is a problem too."""
    return f"system\nYou are careful.\nuser\nExample: {question('59')} 434.\nNow: {question(name)}\nThink.\nassistant\n"


def spread(total: float, count: int) -> list[float]:
    """A sum over so many tokens."""
    return [total / count] * count


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# verl


def verl_rows(records: list[Record], step: int = 500) -> Rows:
    return [
        {
            "input": chat(r.problem),
            "output": r.text,
            "gts": str(gold(r.problem)),
            "score": r.reward,
            "step": step,
            "reward": r.reward,
            "request_id": f"{i:08x}",
        }
        for i, r in enumerate(records)
    ]


def verl(records: list[Record], folder: Path) -> Path:
    return lines(folder / "500.jsonl", verl_rows(records))


def exported_rows(records: list[Record], step: int = 500) -> Rows:
    """As a run that `tiltlab export verl` wrote dumps its validation."""
    return [
        row
        | {
            "grader": "tiltlab",
            "score": r.reward,
            "acc": r.reward,
            "problem": r.problem,
            "answer": r.answer,
            "reason": r.reason,
        }
        | {"complete": r.complete, "tokens": r.tokens, "ids": " ".join(map(str, range(r.tokens)))}
        for r, row in zip(records, verl_rows(records, step), strict=True)
    ]


def exported(records: list[Record], folder: Path) -> Path:
    return lines(folder / "500.jsonl", exported_rows(records))


def exported_rollouts(records: list[Record], folder: Path) -> Path:
    known = ("problem", "complete", "tokens", "logp", "ref_logp")
    rows = zip(records, verl_rows(records), strict=True)
    told = [row | {key: getattr(r, key) for key in known} | {"grader": "tiltlab"} for r, row in rows]
    return lines(folder / "500.jsonl", told)


# TRL


def trl(records: list[Record], folder: Path, step: int = 500) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "step": [step for _ in records],
        "prompt": [chat(r.problem) for r in records],
        "completion": [r.text for r in records],
        "accuracy_reward": [None if isnan(r.reward) else r.reward for r in records],
        "format_reward": [float(r.answer is not None) for r in records],
        "advantage": [r.reward - 0.5 for r in records],
    }
    path = folder / f"completions_{step:05d}.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


# lm-evaluation-harness


def lm_eval_rows(records: list[Record]) -> Rows:
    groups = [list(group) for _, group in groupby(records, key=lambda r: r.problem)]
    return [
        {
            "doc_id": int(group[0].problem),
            "doc": {"question": question(group[0].problem), "answer": str(gold(group[0].problem))},
            "target": str(gold(group[0].problem)),
            "arguments": {
                "gen_args_0": {"arg_0": chat(group[0].problem), "arg_1": {"until": ["Q:"], "do_sample": True}}
            },
            "resps": [[r.text for r in group]],
            "filtered_resps": [group[0].answer or "[invalid]"],
            "filter": named,
            "metrics": ["exact_match"],
            "doc_hash": "d" * 64,
            "prompt_hash": "p" * 64,
            "target_hash": "t" * 64,
            "exact_match": group[0].reward,
        }
        for named in ("strict-match", "flexible-extract")
        for group in groups
    ]


def lm_eval(records: list[Record], folder: Path) -> Path:
    return lines(folder / "samples_plums_2026-01-02T03-04-05.678901.jsonl", lm_eval_rows(records))


# prime-rl


def prime_rl_row(r: Record, step: int = 500) -> dict[str, Any]:
    asked = {"role": "user", "content": question(r.problem)}
    task = {
        "type": "Task",
        "key": f"plums-{r.problem}",
        "hash": "abc",
        "data": {"idx": int(r.problem), "prompt": [asked]},
    }
    answered = {
        "parent": 1,
        "message": {"role": "assistant", "content": r.text},
        "sampled": True,
        "token_ids": [1, *range(2, 2 + r.tokens)],
        "mask": [False] + [True] * r.tokens,
        "logprobs": spread(r.logp, r.tokens),
        "reference_logprobs": spread(r.ref_logp, r.tokens),
    }
    nodes = [
        {"message": {"role": "system", "content": "You are careful."}, "sampled": False, "token_ids": [5, 6]},
        {"parent": 0, "message": asked, "sampled": False, "token_ids": [7, 8], "mask": [False, False]},
        answered,
    ]
    trace = {
        "version": 1,
        "id": f"{r.problem}-{r.sample}",
        "task": task,
        "agent": {"config": {}, "name": "agent", "trainable": True},
        "nodes": nodes,
        "calls": [{"node": 2, "finish_reason": "stop" if r.complete else "length"}],
        "rewards": {"correct_answer": {"score": r.reward, "weight": 1.0}, "length": {"score": 0.1, "weight": 0.0}},
        "is_completed": True,
        "ok": True,
        "stop_condition": "agent_completed",
    }
    work = {"type": "eval", "step": step}
    return {
        "id": f"e{r.problem}-{r.sample}",
        "task": task,
        "ok": True,
        "run": {"type": "train", "id": "x", "work": work},
        "traces": [trace],
    }


def prime_rl(records: list[Record], folder: Path) -> Path:
    return lines(folder / "rollouts/step_500/eval/all/traces.jsonl", map(prime_rl_row, records))


# NeMo-RL


def nemo_rl_rows(records: list[Record]) -> Rows:
    longest = max(r.tokens for r in records) + 4
    return [
        {
            "content": [[chat(r.problem), r.text]],
            "rewards": [r.reward],
            "input_lengths": [4 + r.tokens],
            "token_ids": [[9] * (4 + r.tokens) + [0] * (longest - 4 - r.tokens)],
            "token_loss_mask": [[0] * 4 + [1] * r.tokens + [0] * (longest - 4 - r.tokens)],
            "sample_loss_mask": [1.0],
            "advantages": [[0.5] * longest],
            "generation_logprobs": [[0.0] * 4 + spread(r.logp, r.tokens) + [0.0] * (longest - 4 - r.tokens)],
            "prev_logprobs": [[0.0] * longest],
            "idx": i,
        }
        for i, r in enumerate(records)
    ]


def nemo_rl(records: list[Record], folder: Path) -> Path:
    return lines(folder / "train_data_step501.jsonl", nemo_rl_rows(records))


# open-instruct


def tokenizer() -> Tokenizer:
    """A token a byte."""
    made = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def open_instruct_rows(records: list[Record]) -> Rows:
    made = tokenizer()
    rows = []
    for i, r in enumerate(records):
        ids = made.encode(r.text).ids
        rows.append(
            {
                "step": 500,
                "sample_idx": i,
                "prompt_idx": i // 8,
                "prompt_tokens": made.encode(chat(r.problem)).ids,
                "response_tokens": ids,
                "reward": r.reward,
                "advantage": 0.5,
                "finish_reason": "stop" if r.complete else "length",
                "dataset": "plums",
                "ground_truth": None,
                "request_info": None,
                "logprobs": spread(r.logp, len(ids)),
            }
        )
    return rows


def open_instruct(records: list[Record], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    return lines(folder / "run_rollouts_000000.jsonl", open_instruct_rows(records))


# OpenAI, vLLM


def openai_rows(records: list[Record]) -> Rows:
    return [
        {
            "id": f"batch_{r.problem}_{r.sample}",
            "custom_id": f"{r.problem}-{r.sample}",
            "response": {
                "status_code": 200,
                "request_id": "r",
                "body": {
                    "id": "chatcmpl",
                    "object": "chat.completion",
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": r.text},
                            "finish_reason": "stop" if r.complete else "length",
                            "logprobs": {"content": [{"token": "x", "logprob": v} for v in spread(r.logp, r.tokens)]},
                        }
                    ],
                    "usage": {"prompt_tokens": 4, "completion_tokens": r.tokens, "total_tokens": 4 + r.tokens},
                },
            },
            "error": None,
        }
        for r in records
    ]


def openai(records: list[Record], folder: Path) -> Path:
    return lines(folder / "output.jsonl", openai_rows(records))


# plain


def plain_rows(records: list[Record]) -> Rows:
    return [
        {
            "q": question(r.problem),
            "out": {"body": r.text, "n": r.tokens},
            "why": "stop" if r.complete else "length",
            "lp": r.logp,
            "lp0": r.ref_logp,
            "ok": r.reason == "correct",
        }
        for r in records
    ]


FIELDS = "text=out.body, prompt=q, tokens=out.n, finish=why, logp=lp, ref_logp=lp0, reward=ok"


def plain(records: list[Record], folder: Path) -> Path:
    return lines(folder / "mine.jsonl", plain_rows(records))


# Inspect


def inspect_sample(r: Record) -> dict[str, Any]:
    said = r.text if r.sample else "attachment://abc"  # long texts stand apart
    return {
        "id": int(r.problem),
        "epoch": r.sample + 1,
        "input": [{"role": "system", "content": "You are careful."}, {"role": "user", "content": question(r.problem)}],
        "target": str(gold(r.problem)),
        "messages": [],
        "output": {
            "model": "m",
            "choices": [
                {
                    "message": {
                        "role": "assistant",
                        "content": [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": said}],
                    },
                    "stop_reason": "stop" if r.complete else "max_tokens",
                    "logprobs": {
                        "content": [{"token": "x", "logprob": v, "bytes": None} for v in spread(r.logp, r.tokens)]
                    },
                }
            ],
            "usage": {"input_tokens": 4, "output_tokens": r.tokens, "total_tokens": 4 + r.tokens},
        },
        "scores": {"match": {"value": "C" if r.reason == "correct" else "I", "answer": r.answer}},
        "attachments": {"abc": r.text},
    }


def inspect_log(records: list[Record]) -> dict[str, Any]:
    about = {"task": "plums", "model": "m", "created": "2026-01-02T03:04:05+00:00"}
    return {"version": 2, "status": "success", "eval": about, "samples": [inspect_sample(r) for r in records]}


def inspect_json(records: list[Record], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "2026-01-02_plums.json"
    path.write_text(json.dumps(inspect_log(records)), encoding="utf-8")
    return path


def inspect_eval(records: list[Record], folder: Path, *, zstandard: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    log = inspect_log(records)
    entries = {"header.json": {key: value for key, value in log.items() if key != "samples"}}
    entries |= {f"samples/{s['id']}_epoch_{s['epoch']}.json": s for s in log["samples"]}
    path = folder / "2026-01-02_plums.eval"
    if zstandard:
        path.write_bytes(zstandard_zip({name: json.dumps(entry).encode() for name, entry in entries.items()}))
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, entry in entries.items():
            file.writestr(name, json.dumps(entry))
    return path


def inspect_zstandard(records: list[Record], folder: Path) -> Path:
    return inspect_eval(records, folder, zstandard=True)


def zstandard_zip(entries: dict[str, bytes]) -> bytes:
    """A zip of method 93, which Python writes from 3.14 on only."""
    out, directory = BytesIO(), BytesIO()
    for name, data in entries.items():
        packed = pyarrow.compress(data, codec="zstd", asbytes=True)
        at, shared = out.tell(), (63, 0, 93, 0, 0x21, zlib.crc32(data), len(packed), len(data), len(name.encode()), 0)
        out.write(b"PK\3\4" + struct.pack("<HHHHHIIIHH", *shared) + name.encode() + packed)
        central = struct.pack("<HHHHHHIIIHHHHHII", 63, *shared, 0, 0, 0, 0, at)
        directory.write(b"PK\1\2" + central + name.encode())
    start, size = out.tell(), len(directory.getvalue())
    out.write(directory.getvalue())
    out.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), size, start, 0))
    return out.getvalue()


Writer = Callable[[list[Record], Path], Path]
