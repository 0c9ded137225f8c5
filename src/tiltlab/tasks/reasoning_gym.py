"""Families of reasoning-gym as tasks: endless problems, each made from a seed. Needs the extra `gym`.

Only families whose oracle answer is the only right one, and can be compared as a number or as text. reasoning-gym's own
score_answer is never called: in several families it runs the answer as Python, and its scores are not 0 or 1.

Left out on purpose: families with many right answers (countdown, sudoku, word_ladder, ...); composite data sets.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, get_args

from tiltlab.datasets.columns import LoadedProblems
from tiltlab.datasets.overlap import apart, normal
from tiltlab.datasets.registry import INSTRUCTION
from tiltlab.errors import UserError, words
from tiltlab.grading.answers import grade_number, last_boxed, number
from tiltlab.seeds import derive
from tiltlab.tasks.dataset import check_template, rendered
from tiltlab.types import Grade, Problem, Prompt, Split

# fmt: off
FAMILIES = frozenset([
    "acre", "aiw", "base_conversion", "basic_arithmetic", "bf", "binary_alternation", "bitwise_arithmetic",
    "calendar_arithmetic", "chain_sum", "circuit_logic", "color_cube_rotation", "count_bits", "count_primes",
    "course_schedule", "game_of_life_halting", "gcd", "gsm_symbolic", "isomorphic_strings", "largest_island", "lcm",
    "leg_counting", "letter_counting", "mahjong_puzzle", "maze", "needle_haystack", "products", "ransom_note",
    "rotten_oranges", "self_reference", "simple_equations", "simple_geometry", "spell_backward", "spiral_matrix",
    "string_insertion", "string_manipulation", "string_splitting", "string_synthesis", "word_sequence_reversal",
    "zebra_puzzles",
])
# fmt: on
"""Read one by one: their questions have one answer, a number, a word or a line without braces."""

STRIDE = 10_000_000
"""Seeds between one split's first problem and the next split's: problem i of a data set is made from its seed + i, so
data sets with neighbouring seeds share nearly all problems."""


@dataclass(frozen=True)
class ReasoningGym:
    """Problems of one family; the response's last complete \\boxed{} counts.

    task: its name in a recipe.
    family: one of `FAMILIES`.
    train, validation, test: how many problems are drawn; questions that come twice are left out, so there may be fewer.
    settings: the family's own (min_terms and the like).
    seed: of the problems.
    prompt, template: as for `Data`.
    name: what people and folders call the task; the family where left out.
    """

    task: Literal["reasoning_gym"]
    family: str
    name: str = ""
    train: int = 2000
    validation: int = 100
    test: int = 300
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    prompt: Literal["chat", "plain"] = "chat"
    template: str = INSTRUCTION
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Raises ValueError for a family that cannot be graded safely, sizes below 1, settings that are the task's."""
        check_template(self.template)
        if self.family not in FAMILIES:
            raise ValueError(
                f"family {self.family!r} is not offered: its answers are not unique, or cannot be compared as numbers "
                f"or text without reasoning-gym's scoring, which may run them as code; take one of "
                f"{', '.join(sorted(FAMILIES))}"
            )
        for split in get_args(Split):
            if not 1 <= getattr(self, split) <= STRIDE:
                raise ValueError(f"{split} must be from 1 to {STRIDE} problems, got {getattr(self, split)}")
        if {"seed", "size"} & set(self.settings):
            raise ValueError("settings are the family's own; seed and the sizes of splits are keys of the task")
        try:
            json.dumps(self.settings)
        except TypeError as error:
            raise ValueError(f"settings must be plain values, got {self.settings}") from error
        object.__setattr__(self, "name", self.name or self.family)

    def problems(self, split: Split) -> Sequence[Problem]:
        """All problems of a split, the same in the same order at each call; they are made once a process.

        Raises UserError where reasoning-gym is not installed and for settings that the family does not have.
        """
        return self._loaded(split).problems

    def notes(self, split: Split) -> Sequence[str]:
        """Which questions were left out, one line each."""
        return self._loaded(split).notes

    def render(self, problem: Problem) -> Prompt:
        """The template with the question in it, as text or chat."""
        return rendered(self.template, self.prompt, problem)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Equal as numbers where the oracle is one, else as text, but for case, spaces and a \\text{} around it."""
        if number(problem.answer) is not None:
            return grade_number(text, problem.answer, "boxed")
        answer = last_boxed(text)
        if not answer:
            return Grade(0.0, None, "no_answer")
        shown = _plain(answer)  # a normal form: answers that are equal here vote together
        correct = shown == _plain(problem.answer)
        return Grade(float(correct), shown, "correct" if correct else "wrong")

    def _loaded(self, split: Split) -> LoadedProblems:
        sizes = tuple((name, getattr(self, name)) for name in ("test", "validation", "train"))
        return _splits(self.family, sizes, json.dumps(self.settings, sort_keys=True), self.seed)[split]


@cache
def _splits(family: str, sizes: tuple[tuple[Split, int], ...], settings: str, seed: int) -> dict[Split, LoadedProblems]:
    """Each split without the questions of those before it. settings: as JSON."""
    start = derive(seed, "reasoning_gym", family) % 2**30
    before: list[Problem] = []
    splits: dict[Split, LoadedProblems] = {}
    for i, (split, size) in enumerate(sizes):
        drawn = list(_drawn(family, start + i * STRIDE, size, json.loads(settings)))
        distinct = list({normal(problem.question): problem for problem in reversed(drawn)}.values())[::-1]
        twice = len(drawn) - len(distinct)
        notes = [f"{family}: {twice} of {size} questions drawn for {split} came twice and were left out"] * bool(twice)
        kept, said = apart(distinct, split, before, "another split")
        if not kept:
            raise UserError(
                f"family {family} has no question left for its {split} split; ask for fewer problems, or for settings "
                "with more of them"
            )
        before += kept
        splits[split] = LoadedProblems(tuple(kept), (*notes, *said))
    return splits


def _drawn(family: str, seed: int, size: int, settings: dict[str, Any]) -> Iterator[Problem]:
    try:
        import reasoning_gym
    except ImportError as error:
        raise UserError('task reasoning_gym needs the extra `gym`: pip install "tiltlab[gym]"') from error
    try:
        made = reasoning_gym.create_dataset(family, seed=seed, size=size, **settings)
        rows = [made[i] for i in range(size)]
    except (TypeError, ValueError, AssertionError) as error:  # what the families check their settings with
        raise UserError(f"family {family} cannot be made with settings {settings} ({words(error)})") from error
    for i, row in enumerate(rows):
        yield Problem(f"{family}/{seed + i}", row["question"], str(row["answer"]))


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).strip(" \n$.")
    wrapped = re.fullmatch(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", text)
    return " ".join((wrapped[1] if wrapped else text).strip(".").casefold().split())
