"""From rows to problems: which columns hold the question, the gold answer and the name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tiltlab.datasets.cells import as_text, chat_of, chat_text, id_of, is_empty
from tiltlab.datasets.files import Row, read_rows
from tiltlab.datasets.hub import Hub, hub_rows
from tiltlab.datasets.overlap import listed
from tiltlab.datasets.registry import Extract, gold, worked
from tiltlab.errors import UserError, shown
from tiltlab.grading.answers import number
from tiltlab.types import Message, Problem


@dataclass(frozen=True)
class Reading:
    """How to read a row. Columns are tried in their order, and the first that holds something counts.

    questions: columns of the question.
    golds: columns of the gold answer, each with how to read it out of its cell.
    ids: columns of the id; a row without one is named by its place in the file.
    numbers: gold answers must be numbers.
    tolerant: rows whose gold answer is empty are left out, with a note, as sets on the hub have a few; else they are
        refused.
    chats: whether a question may be a list of chat messages.
    """

    questions: tuple[str, ...] = ("problem",)
    golds: tuple[tuple[str, Extract], ...] = (("answer", "whole"),)
    ids: tuple[str, ...] = ("id",)
    numbers: bool = False
    tolerant: bool = False
    chats: bool = True


@dataclass(frozen=True)
class LoadedProblems:
    """Problems as they were read.

    problems: in the order of their rows.
    notes: what there is to say of how they were read, one line each.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def read_problems(sources: tuple[str | Hub, ...], reading: Reading) -> LoadedProblems:
    """Every problem of these files or hub splits, in order.

    sources: paths of files, and splits on the hub.
    reading: which columns hold what.

    Raises UserError, naming file and line or row, for a row that cannot be used, and for two with the same id.
    """
    problems: dict[str, Problem] = {}
    rows: dict[str, str] = {}
    read, empty = Counter[str](), []
    for source in sources:
        for where, row in hub_rows(source) if isinstance(source, Hub) else read_rows(source):
            answer = _gold(row, reading, where)
            if answer is None:
                empty.append(where)
                continue
            problem = _problem(row, reading, *answer, where)
            if problem.id in problems:
                raise UserError(
                    f"{where} has the id {problem.id[:60]!r}, as {rows[problem.id]} has; "
                    "give every row of a file an id of its own, or none"
                )
            problems[problem.id], rows[problem.id] = problem, where
            read[answer[0]] += 1
    names = ", ".join(map(str, sources))
    if not problems:
        raise UserError(f"{names} is empty; it needs rows with a question and an answer")
    chats = sum(bool(problem.messages) for problem in problems.values())
    return LoadedProblems(tuple(problems.values()), tuple(_notes(names, reading, read, empty, chats)))


def _notes(names: str, reading: Reading, read: Counter[str], empty: Sequence[str], chats: int) -> list[str]:
    notes = []
    if len(reading.golds) > 1:
        notes.append(f"{names}: gold answers from " + ", ".join(f"{name} ({n} rows)" for name, n in read.items()))
    if empty:
        notes.append(f"{names}: {len(empty)} rows without a gold answer were left out: {listed(empty)}")
    if chats:
        are = "question is a chat" if chats == 1 else "questions are chats"
        notes.append(f"{names}: {chats} {are}, sent as given; no template is put around")
    return notes


def _gold(row: Row, reading: Reading, where: str) -> tuple[str, Extract, str] | None:
    """Column, extraction and text of the gold answer; None where its cell is empty and that is tolerated."""
    for column, extract in reading.golds:
        text = gold(row.get(column), extract)
        if text is not None:
            return column, extract, text
    there = [column for column, _ in reading.golds if column in row]
    if there and reading.tolerant:
        return None
    raise _missing(where, "answer", [column for column, _ in reading.golds], row)


def _problem(row: Row, reading: Reading, column: str, extract: Extract, text: str, where: str) -> Problem:
    if reading.numbers and number(text) is None:
        raise UserError(
            f"{where}: answer {text[:60]!r} is not a number; set `grader: maths` where answers are expressions"
        )
    column_of_question, question, messages = _question(row, reading, where)
    rest = {
        key: value for key, value in row.items() if key != column_of_question and (key != column or extract == "boxed")
    }
    if extract == "hashes" and (steps := worked(row[column])) is not None:
        rest["solution"] = steps
    names = (id_of(row.get(key), f"{where}, column {shown(key)},") for key in reading.ids)
    return Problem(next(filter(None, names), where), question, text, rest, messages)


def _question(row: Row, reading: Reading, where: str) -> tuple[str, str, tuple[Message, ...]]:
    """Column, text and, where it is one, chat of the question."""
    column = next((name for name in reading.questions if not is_empty(row.get(name))), None)
    if column is None:
        raise _missing(where, "question", reading.questions, row)
    cell = row[column]
    if isinstance(cell, list):
        chat = chat_of(cell, f"{where}, column {shown(column)}")
        if not reading.chats:
            raise UserError(
                f"{where}: column {shown(column)} holds a chat, and this task sends text; set `prompt: chat`"
            )
        return column, chat_text(chat), chat
    text = as_text(cell)
    if text is None:
        raise _missing(where, "question", reading.questions, row)
    return column, text, ()


def _missing(where: str, what: str, columns: Sequence[str], row: Row) -> UserError:
    """Columns that hold nothing, or a column that holds what is neither text nor number."""
    odd = next((column for column in columns if not is_empty(row.get(column)) and as_text(row[column]) is None), None)
    if odd is not None:
        said = f"{where} has no {what}: column {shown(odd)} holds a {type(row[odd]).__name__}, {shown(row[odd])}"
        return UserError(f"{said}; it needs text or a number")
    named = " or ".join(f'"{column}"' for column in dict.fromkeys(columns))
    there = ", ".join(map(str, row))[:200]
    return UserError(f"{where} has no {what}: column {named} is missing or empty (its columns: {there})")
