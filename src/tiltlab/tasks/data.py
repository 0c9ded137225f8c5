"""Problems from a JSONL file: one object a line with a question and an answer.

Left out on purpose, for now: Parquet, CSV and hub data sets; answers that are not numbers.
"""

import json
import re
import unicodedata
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
    rows of train that stand in test or select (case, sentence punctuation and the width of spaces aside) are left out.
    columns: which columns hold the question and the answer; the column id, where there is one, names a problem. prompt:
    "chat" sends a user message through the model's chat template, "plain" sends the text as it is. template: the
    prompt, with {question} in it and all other braces doubled, for str.format.
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

    def __post_init__(self) -> None:
        """Raises ValueError for a template without {question}, columns other than the two, an empty select split."""
        _check_template(self.template)
        if set(self.columns) != {"question", "answer"}:
            raise ValueError(f"columns needs the keys question and answer and no others, got {list(self.columns)}")
        if self.select < 1:
            raise ValueError(f"select must be at least 1, as it chooses the best checkpoint; got {self.select}")

    def problems(self, split: Split) -> Sequence[Problem]:
        splits = _splits(self.train, self.test, self.select, self.columns["question"], self.columns["answer"])
        return splits[split]

    def render(self, problem: Problem) -> Prompt:
        text = self.template.format(question=problem.question)
        return text if self.prompt == "plain" else ({"role": "user", "content": text},)

    def grade(self, problem: Problem, text: str) -> Grade:
        return grade_number(text, problem.answer, "boxed")


def read_problems(path: str, question: str, answer: str) -> list[Problem]:
    """Every row of a JSONL file. Raises UserError, naming file and line, for a row that cannot be used, and for two
    with the same id."""
    problems: dict[str, Problem] = {}
    lines: dict[str, str] = {}
    for where, row in _rows(path):
        problem = _problem(row, question, answer, where)
        if problem.id in problems:
            raise UserError(
                f"{where} has the id {problem.id[:60]!r}, as {lines[problem.id]} has; "
                "give every row of a file an id of its own, or none"
            )
        problems[problem.id], lines[problem.id] = problem, where
    if not problems:
        raise UserError(f"data file {path} is empty; it needs one JSON object a line")
    return list(problems.values())


def _check_template(template: str) -> None:
    mark = "a question"
    try:
        filled = template.format(question=mark)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"template cannot be filled in ({type(error).__name__}: {error}); "
            "write {question} where the question goes, and double all other braces, as in \\boxed{{}}"
        ) from error
    if mark not in filled:
        raise ValueError("template has no {question} in it; write {question} (single braces) where the question goes")


def _rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {i}"
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # JSON can spell halves of characters that UTF-8 cannot hold
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where} holds half a character (a \\ud800-\\udfff escape without its pair); write the whole character"
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} is not JSON ({error}); it needs one JSON object a line") from error
        if not isinstance(row, dict):
            raise UserError(f"{where} holds a {type(row).__name__}, not a JSON object")
        yield where, row


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise UserError(f"data file {path} does not exist") from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home for ~; ValueError: a null in the path
        raise UserError(f"data file {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


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
    name = where if row.get("id") is None else str(row["id"])
    return Problem(name, str(row[question]), gold, rest)


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
    """What two wordings of one question share. A point, comma or colon between digits is a part of the number."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"""(?<!\d)[.,;:!?"']|[.,;:!?"'](?!\d)""", "", plain).split())
