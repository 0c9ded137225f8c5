"""The named sets of mathematical problems: where they are on the hub, what their columns mean, how their gold answers
are read.

Left out on purpose: the sets themselves, and pinned revisions: `revision` in a recipe pins one, and a run folder keeps
a hash of all problems in any case.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tiltlab.datasets.cells import as_text
from tiltlab.datasets.hub import Hub
from tiltlab.grading.answers import last_boxed
from tiltlab.types import Split

MathName = Literal[
    "math", "math500", "minerva", "gsm8k", "aime24", "aime25", "hmmt_feb24", "hmmt_feb25", "deepscaler", "olympiadbench"
]

Extract = Literal["whole", "boxed", "hashes"]
"""How a gold answer is read out of its cell: all of it, the last \\boxed{} of a solution, what follows `####`."""

INSTRUCTION = "Think step by step, and put the final answer inside \\boxed{{}}.\n\n{question}"
"""The default template, after the paper's: reasoning first, the answer in a box. Braces are doubled, for str.format."""


@dataclass(frozen=True)
class MathSet:
    """One named set.

    hub: its id on the hub, owner/name.
    train, test: the hub's name of the split, None where the set has none to learn from or to be tested on.
    question: column of the question.
    golds: columns of the gold answer, tried in this order, each with how to read it out of its cell.
    id: column of a name.
    configs: of the data set on the hub, whose rows are put one after another.
    sorted: rows stand subject by subject on the hub, so the first of them stand for none but themselves.
    """

    hub: str
    train: str | None
    test: str | None
    question: str = "problem"
    golds: tuple[tuple[str, Extract], ...] = (("answer", "whole"),)
    id: str = "id"
    configs: tuple[str | None, ...] = (None,)
    sorted: bool = False

    def sources(self, split: Split, revision: str | None) -> tuple[Hub, ...]:
        """Where the split's rows are; the validation split is taken from train. Empty where there is no such split.

        revision: of the data set on the hub; its newest where None.
        """
        name = self.test if split == "test" else self.train
        return tuple(Hub(self.hub, config, name, revision) for config in self.configs) if name else ()


_SOLUTION: tuple[tuple[str, Extract], ...] = (("answer", "whole"), ("solution", "boxed"))

# fmt: off
SETS: dict[str, MathSet] = {
    "math": MathSet("DigitalLearningGmbH/MATH-lighteval", "train", "test", golds=_SOLUTION, sorted=True),
    "math500": MathSet("HuggingFaceH4/MATH-500", None, "test", golds=_SOLUTION, id="unique_id"),
    "minerva": MathSet("math-ai/minervamath", None, "test", "question",
                       (("answer_latex", "whole"), ("answer", "whole"))),
    "gsm8k": MathSet("openai/gsm8k", "train", "test", "question", (("answer", "hashes"),), configs=("main",)),
    "aime24": MathSet("HuggingFaceH4/aime_2024", None, "train"),
    "aime25": MathSet("opencompass/AIME2025", None, "test", "question", configs=("AIME2025-I", "AIME2025-II")),
    "hmmt_feb24": MathSet("MathArena/hmmt_feb_2024", None, "train", id="problem_idx"),
    "hmmt_feb25": MathSet("MathArena/hmmt_feb_2025", None, "train", id="problem_idx"),
    "deepscaler": MathSet("agentica-project/DeepScaleR-Preview-Dataset", "train", None),
    "olympiadbench": MathSet("Hothan/OlympiadBench", None, "train", "question",
                             (("final_answer", "whole"), ("answer", "whole")), configs=("OE_TO_maths_en_COMP",)),
}
# fmt: on


_BLANK = re.compile(r"(?:\\boxed\s*\{\s*\}|[\s$*#.,:;\u200b-\u200f\u2060\ufeff])*")
"""An answer of nothing but marks around one."""


def gold(cell: Any, extract: Extract) -> str | None:
    """The gold answer in a cell; None where it holds none. Several answers in a list are joined by commas.

    extract: how it is read out of the cell.
    """
    texts = [as_text(item) for item in (cell if isinstance(cell, list) else [cell])]
    known = [text.strip() for text in texts if text is not None]
    answer = _EXTRACT[extract](", ".join(filter(None, known))) if len(known) == len(texts) else None
    return None if answer is None or _BLANK.fullmatch(answer) else answer


def worked(cell: Any) -> str | None:
    """The solution that GSM8K writes before its `####`, without the <<calculator>> notes; None where there is none."""
    before, hashes, _ = str(cell).rpartition("####")
    return re.sub(r"<<[^<>]*>>", "", before).strip() if hashes else None


def _boxed(text: str) -> str | None:
    """The last box; two solutions of MATH write \\boxed 2, without braces."""
    bare = re.findall(r"\\boxed\s+([^\s{}$]+)", text)
    return last_boxed(text) or (bare[-1] if bare else None)


def _after_hashes(text: str) -> str:
    after = text.rpartition("####")[2].strip()
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", after)


_EXTRACT: dict[Extract, Callable[[str], str | None]] = {
    "whole": lambda text: text,
    "boxed": _boxed,
    "hashes": _after_hashes,
}
