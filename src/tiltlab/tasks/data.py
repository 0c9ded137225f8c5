"""Problems from a JSONL file: one object a line with a question and an answer.

Left out on purpose, for now: Parquet, CSV and hub data sets; answers that are not numbers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from tiltlab.errors import UserError
from tiltlab.tasks.answers import grade_number, number
from tiltlab.tasks.base import Split
from tiltlab.types import Grade, Problem, Prompt

INSTRUCTION = "Think step by step, and put the final answer inside \\boxed{{}}.\n\n{question}"
"""The default template, after the paper's: reasoning first, the answer in a box. Braces are doubled, for str.format."""


@dataclass(frozen=True)
class Data:
    """Word problems with numbers for answers; the response's last complete \\boxed{} counts.

    train, test: JSONL files. The first `select` rows of train that do not stand in test become the select split, and
    rows of train that stand in test or select (case, punctuation and spaces aside) are left out of it.
    columns: which columns hold the question and the answer. prompt: "chat" sends a user message through the model's
    chat template, "plain" sends the text as it is. template: the prompt, with {question} in it.
    """

    task: Literal["data"]
    train: str
    test: str
    name: str = "data"
    select: int = 64
    columns: Mapping[str, str] = field(default_factory=lambda: {"question": "problem", "answer": "answer"})
    prompt: Literal["chat", "plain"] = "chat"
    template: str = INSTRUCTION
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def problems(self, split: Split) -> Sequence[Problem]:
        splits = _splits(self.train, self.test, self.select, self.columns["question"], self.columns["answer"])
        return splits[split]

    def render(self, problem: Problem) -> Prompt:
        text = self.template.format(question=problem.question)
        return text if self.prompt == "plain" else ({"role": "user", "content": text},)

    def grade(self, problem: Problem, text: str) -> Grade:
        return grade_number(text, problem.answer, "boxed")


def read_problems(path: str, question: str, answer: str) -> list[Problem]:
    """Every row of a JSONL file. Raises UserError, naming file and line, for a row that cannot be used."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data file {path} does not exist")
    problems = [_problem(row, question, answer, where) for where, row in _rows(file, path)]
    if not problems:
        raise UserError(f"data file {path} is empty; it needs one JSON object a line")
    return problems


def _rows(file: Path, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path} line {i} is not JSON ({error}); it needs one JSON object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{path} line {i} holds a {type(row).__name__}, not a JSON object")
        yield f"{path} line {i}", row


def _problem(row: dict[str, Any], question: str, answer: str, where: str) -> Problem:
    for column, key in ((question, "question"), (answer, "answer")):
        if row.get(column) in (None, ""):
            raise UserError(
                f'{where} has no {key}: column "{column}" is missing or empty (its columns: {", ".join(row)})'
            )
    gold = str(row[answer]).strip()
    if number(gold) is None:
        raise UserError(f"{where}: answer {gold[:60]!r} is not a number; only numbers can be graded so far")
    rest = {key: value for key, value in row.items() if key not in (question, answer)}
    return Problem(str(row.get("id", where)), str(row[question]), gold, rest)


@cache
def _splits(train: str, test: str, select: int, question: str, answer: str) -> dict[Split, list[Problem]]:
    test_rows = read_problems(test, question, answer)
    seen = {_normal(problem.question) for problem in test_rows}
    train_rows = [p for p in read_problems(train, question, answer) if _normal(p.question) not in seen]
    chosen = train_rows[:select]
    seen = {_normal(problem.question) for problem in chosen}
    rest = [p for p in train_rows[select:] if _normal(p.question) not in seen]
    if not rest:
        raise UserError(
            f"{train} leaves no row to train on after {select} rows for selection; lower `select` or give more data"
        )
    return {"train": rest, "select": chosen, "test": test_rows}


def _normal(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())
