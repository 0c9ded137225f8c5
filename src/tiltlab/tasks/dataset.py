"""Problems of one's own, and the named sets of mathematics: files or hub data sets with a question and an answer.

Left out on purpose: how a row is read (datasets/columns.py), where the named sets are (datasets/registry.py), and
mathematics itself: whether two expressions are equal is for grading/maths.py to say.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import PlainSerializer

from tiltlab.datasets.columns import LoadedProblems, Reading, read_problems
from tiltlab.datasets.files import is_file
from tiltlab.datasets.hub import Hub
from tiltlab.datasets.overlap import apart
from tiltlab.datasets.registry import INSTRUCTION, SETS, MathName, MathSet
from tiltlab.errors import AtKey, UserError, shown
from tiltlab.grading.answers import grade_number, number
from tiltlab.seeds import derive
from tiltlab.types import Grade, Problem, Prompt, Split

Grader = Literal["maths", "maths_lenient", "number"]
"""maths: equal as mathematics, in the last complete box. maths_lenient: as the paper's verifier reads a response.
number: equal as plain numbers, in the last complete box; no mathematics at all, and much the fastest."""

VALIDATION_ROWS = 64
"""Rows of train that choose the best checkpoint where a recipe does not say how many; at most a quarter of them."""

Validation = Annotated[
    int | Hub | str | None, PlainSerializer(lambda given: VALIDATION_ROWS if given is None else given)
]
"""Where it is left out, run folders keep it as they always have."""


@dataclass(frozen=True)
class Data:
    """Questions with gold answers, from files or the hub.

    task: `data`, or the name of a set.
    train, test: where the rows are: a .jsonl, .json, .parquet or .csv file, the name of a set, a hub id (owner/name),
        or a `Hub` with config, split and revision. A named set needs neither.
    validation: likewise, or how many rows of train become the validation split: the first that do not stand in test;
        64, or a quarter of the rows if that is less, where left out. A named set's rows to learn from are put in a
        fixed random order before.
    columns: which columns hold question, answer and id; the set's own where left out, else problem, answer and id.
    prompt: "chat" sends a user message through the model's chat template, "plain" sends the text as it is. A question
        that is a list of messages is the chat itself: no template of ours is put around it.
    template: the prompt, with {question} in it and all other braces doubled, for str.format.
    grader: how answers are compared.
    revision: of the set, or of a hub id, on the hub.
    name: what people and folders call the task; `task` where left out.

    No question of test stands in validation or train, nor one of validation in train: `notes` says what was left out.
    """

    task: Literal["data"] | MathName
    train: Hub | str | None = None
    test: Hub | str | None = None
    name: str = ""
    validation: Validation = None
    columns: Mapping[str, str] = field(default_factory=dict)
    prompt: Literal["chat", "plain"] = "chat"
    template: str = INSTRUCTION
    grader: Grader = "maths"
    revision: str | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Raises ValueError for a template without {question}, unknown columns, an empty validation split, no data."""
        check_template(self.template)
        if not set(self.columns) <= {"question", "answer", "id"}:
            raise ValueError(f"columns has the keys question, answer and id and no others, got {list(self.columns)}")
        if isinstance(self.validation, int) and self.validation < 1:
            raise ValueError(f"validation must be at least 1, as it chooses the best checkpoint; got {self.validation}")
        if self.task == "data" and self.train is None and self.test is None:
            raise ValueError("data needs train, test or both: FILE, a hub id, or the name of a set")
        object.__setattr__(self, "name", self.name or self.task)

    def problems(self, split: Split) -> Sequence[Problem]:
        """All problems of a split, the same in the same order at each call; files are read once a process.

        Raises UserError for a split that there is not, and for rows that cannot be used.
        """
        return self._loaded(split).problems

    def notes(self, split: Split) -> Sequence[str]:
        """Which gold answers were read, and which rows were left out, one line each."""
        return self._loaded(split).notes

    def render(self, problem: Problem) -> Prompt:
        """The template with the question in it, as text or chat; a chat that the data brought, as it stands."""
        return rendered(self.template, self.prompt, problem)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the answer in the response is the gold answer, as `grader` compares them.

        Mathematics is compared in a worker, with a deadline: NaN and the reason where nobody knows.
        """
        if self.grader == "number":
            return grade_number(text, problem.answer, "boxed")
        from tiltlab.grading.maths import grade_maths  # heavy, and not everybody's

        return grade_maths(text, problem.answer, _MODES[self.grader])

    def grade_batch(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Grade]:
        """As `grade` does, in order, comparing mathematics in several workers side by side.

        problems, texts: in pairs, as many of the one as of the other.
        """
        if self.grader == "number":
            return [self.grade(problem, text) for problem, text in zip(problems, texts, strict=True)]
        from tiltlab.grading.maths import grade_many

        pairs = [(text, problem.answer) for problem, text in zip(problems, texts, strict=True)]
        return grade_many(pairs, _MODES[self.grader])

    def lenient(self) -> "Data | None":
        return None if self.grader == "maths_lenient" else replace(self, grader="maths_lenient")

    def unread(self, problems: Sequence[Problem]) -> list[Problem]:
        """Those whose gold answer no response can meet, but letter by letter."""
        if self.grader == "number":
            return [problem for problem in problems if number(problem.answer) is None]
        from tiltlab.grading.maths import unread

        odd = unread([problem.answer for problem in problems])
        return [problem for problem, is_odd in zip(problems, odd, strict=True) if is_odd]

    def _loaded(self, split: Split) -> LoadedProblems:
        if split == "test":
            return _read(self._place(self.test, "test"))
        train, test = self._place(self.train, "train"), None
        if self.test is not None or self._has("test"):
            test = self._place(self.test, "test")
        given = self.validation
        validation = given if given is None or isinstance(given, int) else self._place(given, "validation")
        return _learning(train, test, validation)[split]

    def _has(self, split: Split) -> bool:
        own = SETS.get(self.task)
        return own is not None and bool(own.sources(split, None))

    def _place(self, given: str | Hub | None, split: Split) -> "_Place":
        """Where a split's rows are and how to read them."""
        own = SETS.get(self.task)
        if given is None and own is not None:
            given = self.task
        if given is None:
            raise UserError(f"task {self.name} has no {split} split; name one: `{split}: FILE`, a hub id or a set")
        known = SETS.get(given, own) if isinstance(given, str) else own
        shuffled = known is not None and (known.sorted or split == "train")
        return _Place(self._sources(given, split), self._reading(known), shuffled)

    def _sources(self, given: str | Hub, split: Split) -> tuple[str | Hub, ...]:
        if isinstance(given, Hub) or is_file(given):
            return (given,)
        if given in SETS:
            return _set_sources(given, split, self.revision if given == self.task else None)
        if re.fullmatch(r"[\w.-]+/[\w.-]+", given):
            return (Hub(given, split="test" if split == "test" else "train", revision=self.revision),)
        raise UserError(
            f"{split}: {shown(given)} is no file that can be read (.jsonl, .json, .parquet or .csv), no hub id "
            f"(owner/name) and no set ({', '.join(SETS)})"
        )

    def _reading(self, known: MathSet | None) -> Reading:
        """The user's columns first; then the set's own, then those of this package's own files."""
        question, answer, name = (self.columns.get(key) for key in ("question", "answer", "id"))
        golds = known.golds if known else (("answer", "whole"),)
        own = dict(golds)
        return Reading(
            questions=(question,) if question else (known.question, "problem", "question") if known else ("problem",),
            golds=((answer, own.get(answer, golds[0][1])),) if answer else golds,
            ids=(name,) if name else (known.id, "id") if known else ("id",),
            numbers=self.grader == "number",
            tolerant=known is not None,
            chats=self.prompt == "chat",
        )


_MODES: dict[Grader, Literal["strict", "lenient"]] = {"maths": "strict", "maths_lenient": "lenient"}


def from_options(task: str | None, data: str | None, columns: str | None) -> dict[str, Any]:
    """What `--task NAME --data FILE --map problem=question,answer=final` say, as an entry of a recipe's `tasks`.

    The file is the test split. In the map, problem (or question), answer and id stand left, the file's columns right.
    Raises UserError for a map that cannot be read.
    """
    entry: dict[str, Any] = {"task": task or "data"} | ({"test": data} if data else {})
    mapped: dict[str, str] = {}
    for part in columns.split(",") if columns else ():
        key, equals, column = (piece.strip() for piece in part.partition("="))
        key = "question" if key == "problem" else key
        if not (equals and column) or key not in ("question", "answer", "id") or key in mapped:
            raise UserError(f"--map {columns}: write it as problem=COLUMN,answer=COLUMN (and id=COLUMN), each once")
        mapped[key] = column
    return entry | ({"columns": mapped} if mapped else {})


def rendered(template: str, prompt: Literal["chat", "plain"], problem: Problem) -> Prompt:
    """The template with the problem's question in it; a chat that the problem brings, as it stands.

    template: for str.format, with {question} in it.
    prompt: "plain" gives text, "chat" one user message.
    """
    if problem.messages:
        return problem.messages
    text = template.format(question=problem.question)
    return text if prompt == "plain" else ({"role": "user", "content": text},)


def check_template(template: str) -> None:
    """Raises ValueError for a template that cannot be filled in."""
    mark = "a question"
    try:
        if any(spec or conversion for _, _, spec, conversion in Formatter().parse(template)):
            raise ValueError("a field may have no format")  # {question:>999999999} would be a gigabyte of spaces
        filled = template.format(question=mark)
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(
            f"template cannot be filled in ({type(error).__name__}: {error}); "
            "write {question} where the question goes, and double all other braces, as in \\boxed{{}}"
        ) from error
    if mark not in filled:
        raise ValueError("template has no {question} in it; write {question} (single braces) where the question goes")


@dataclass(frozen=True)
class _Place:
    """Sources of one split. shuffled: put in one fixed random order, so that the first rows stand for all; else in the
    order they stand in."""

    sources: tuple[str | Hub, ...]
    reading: Reading
    shuffled: bool


def _set_sources(name: str, split: Split, revision: str | None) -> tuple[Hub, ...]:
    sources = SETS[name].sources(split, revision)
    if not sources and split == "test":
        raise UserError(f"set {name} has nothing to be tested on; name what has: `test: aime24`, say, or `test: FILE`")
    if not sources:
        raise UserError(
            f"set {name} is for testing only; to learn, name other rows: `train: math` (or deepscaler, gsm8k), "
            "or `train: FILE`"
        )
    return sources


@cache
def _read(place: _Place) -> LoadedProblems:
    """Once a process: files are not read again, however often a split is asked for."""
    loaded = read_problems(place.sources, place.reading)
    if not place.shuffled:
        return loaded
    rows = list(loaded.problems)
    random.Random(derive(0, "order")).shuffle(rows)
    return LoadedProblems(tuple(rows), loaded.notes)


@cache
def _learning(train: _Place, test: _Place | None, validation: int | _Place | None) -> dict[str, LoadedProblems]:
    """The train and validation splits, without what stands in test."""
    tested = _read(test).problems if test else ()
    rows, notes = apart(_read(train).problems, "train", tested, "test")
    if validation is None:
        validation = max(1, min(VALIDATION_ROWS, len(rows) // 4))
    if isinstance(validation, int):
        chosen, rows = LoadedProblems(tuple(rows[:validation])), rows[validation:]
    else:
        kept, said = apart(_read(validation).problems, "validation", tested, "test")
        chosen = LoadedProblems(tuple(kept), (*_read(validation).notes, *said))
    rows, more = apart(rows, "train", chosen.problems, "validation")
    if not rows or not chosen.problems:
        raise AtKey(
            "validation",
            f"{', '.join(map(str, train.sources))} leaves no row to train on after {len(chosen.problems)} rows for "
            "validation; lower `validation` or give more data",
        )
    return {"train": LoadedProblems(tuple(rows), (*_read(train).notes, *notes, *more)), "validation": chosen}
