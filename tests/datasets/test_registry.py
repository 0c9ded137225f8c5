"""The named sets, read from small files with the hub's columns and from ones of this package's own."""

from pathlib import Path
from typing import Any, get_args

import pytest

from tests.tasks.files import jsonl, written
from tiltlab.datasets.registry import SETS, MathName, gold, worked
from tiltlab.errors import UserError
from tiltlab.tasks.base import notes_of
from tiltlab.tasks.dataset import Data
from tiltlab.types import Problem

HUB_ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "math": ({"problem": "Q", "level": "1", "solution": r"\boxed{1}, or \boxed{\frac{1}{2}}."}, r"\frac{1}{2}", ""),
    "math500": ({"problem": "Q", "solution": "s", "answer": "7", "unique_id": "test/a/1.json"}, "7", "test/a/1.json"),
    "minerva": ({"question": "Q", "answer": "4e33"}, "4e33", ""),
    "gsm8k": ({"question": "Q", "answer": "2*700=<<2*700=1400>>1400 eggs\n#### 1,400"}, "1400", ""),
    "aime24": ({"id": 60, "problem": "Q", "solution": "s", "answer": "204", "url": "u", "year": "2024"}, "204", "60"),
    "aime25": ({"question": "Q", "answer": "70"}, "70", ""),
    "hmmt_feb24": ({"problem_idx": 4, "problem": "Q", "answer": "-984"}, "-984", "4"),
    "hmmt_feb25": ({"problem_idx": 3, "problem": "Q", "answer": "9/23", "problem_type": ["Algebra"]}, "9/23", "3"),
    "deepscaler": ({"problem": "Q", "answer": "-2", "solution": ""}, "-2", ""),
    "olympiadbench": ({"id": 1606, "question": "Q", "solution": ["s"], "final_answer": ["2", "3"]}, "2, 3", "1606"),
}  # fmt: skip


def only(name: Any, path: str, **changes: Any) -> Problem:
    (problem,) = Data(name, test=path, **changes).problems("test")
    return problem


def test_the_table_holds_every_name() -> None:
    assert set(SETS) == set(get_args(MathName)) == set(HUB_ROWS)


@pytest.mark.parametrize("name", HUB_ROWS)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet", ".csv"])
def test_a_file_with_the_hubs_columns_is_read_as_it_is(tmp_path: Path, name: str, kind: str) -> None:
    row, answer, identity = HUB_ROWS[name]
    if kind == ".csv":
        row = {key: value for key, value in row.items() if not isinstance(value, list)} or row
        row |= {"final_answer": "2, 3"} if name == "olympiadbench" else {}
    path = written(tmp_path / f"d{kind}", [row])
    problem = only(name, path)
    assert (problem.question, problem.answer) == ("Q", answer)
    assert problem.id == (identity or f"{path} {'line' if kind == '.jsonl' else 'row'} 1")


@pytest.mark.parametrize("name", HUB_ROWS)
def test_a_file_of_this_packages_own_columns_is_read_too(tmp_path: Path, name: str) -> None:
    path = jsonl(tmp_path / "d.jsonl", {"id": "a", "problem": "Q", "answer": "18", "solution": r"so \boxed{3}"})
    assert only(name, path) == Problem("a", "Q", "18", {"id": "a", "solution": r"so \boxed{3}"})


@pytest.mark.parametrize("name", HUB_ROWS)
def test_columns_of_ones_own_come_before_the_sets(tmp_path: Path, name: str) -> None:
    row, answer, _ = HUB_ROWS[name]
    cell = "long\n#### 1,400" if name == "gsm8k" else answer
    path = jsonl(tmp_path / "d.jsonl", row | {"asked": "mine", "final": cell})
    problem = only(name, path, columns={"question": "asked", "answer": "final"})
    assert (problem.question, problem.answer) == ("mine", answer)


@pytest.mark.parametrize(
    ("cell", "extract", "answer"),
    [
        ("a #### 1\n#### -1,234,567", "hashes", "-1234567"),
        ("#### 1,2", "hashes", "1,2"),
        ("18", "hashes", "18"),
        ("no answer ####", "hashes", None),
        (r"so $\boxed 2$.", "boxed", "2"),
        (r"\boxed{1} and \boxed{}", "boxed", None),
        ("no box", "boxed", None),
        (" x ", "whole", "x"),
        (["$a$", "$b$"], "whole", "$a$, $b$"),
        ([], "whole", None),
        (b"1", "whole", None),
        (None, "whole", None),
    ],
)
def test_golds_are_read_out_of_cells(cell: Any, extract: Any, answer: str | None) -> None:
    assert gold(cell, extract) == answer


def test_a_worked_solution_loses_its_calculator_notes() -> None:
    cell = "She has 3*4=<<3*4=12>>12.\nThen <<1+1=2>>2.\n#### 2"
    assert worked(cell) == "She has 3*4=12.\nThen 2."
    assert worked("18") is None


def test_gsm8k_keeps_the_solution_beside_the_answer(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "d.jsonl", HUB_ROWS["gsm8k"][0])
    assert only("gsm8k", path).columns == {"solution": "2*700=1400 eggs"}


def test_minervas_mended_golds_come_first_and_are_counted(tmp_path: Path) -> None:
    mended = {"problem": "a", "answer": "4e33", "answer_latex": r"4 \times 10^{33}"}
    path = jsonl(tmp_path / "d.jsonl", mended, *({"problem": f"b{i}", "answer": "3"} for i in range(2)))
    task = Data("minerva", test=path)
    assert [p.answer for p in task.problems("test")] == [r"4 \times 10^{33}", "3", "3"]
    assert notes_of(task, "test") == [f"{path}: gold answers from answer_latex (1 rows), answer (2 rows)"]


def test_a_set_leaves_out_rows_without_a_gold_and_says_so(tmp_path: Path) -> None:
    boxes = [r"\boxed{1}", r"\boxed{}", "none", r"\boxed{2}"]
    path = jsonl(tmp_path / "d.jsonl", *({"problem": f"q{i}", "solution": box} for i, box in enumerate(boxes)))
    task = Data("math", test=path)
    assert sorted(p.answer for p in task.problems("test")) == ["1", "2"]
    assert f"{path}: 2 rows without a gold answer were left out: {path} line 2, {path} line 3" in notes_of(task, "test")
    with pytest.raises(UserError, match='line 1 has no answer: column "final_answer" or "answer" is missing'):
        Data("olympiadbench", test=path).problems("test")


def test_sets_for_testing_only_say_how_to_learn(tmp_path: Path) -> None:
    rows = [{"problem": f"q{i}", "solution": rf"\boxed{{{i}}}"} for i in range(9)]
    test, train = jsonl(tmp_path / "test.jsonl", *rows[:3]), jsonl(tmp_path / "train.jsonl", *rows)
    with pytest.raises(UserError, match="set math500 is for testing only; .*`train: math`"):
        Data("math500", test=test).problems("train")
    with pytest.raises(UserError, match="set aime25 is for testing only"):
        Data("data", train="aime25", test=test).problems("train")
    with pytest.raises(UserError, match="set deepscaler has nothing to be tested on; .*`test: aime24`"):
        Data("deepscaler").problems("test")
    task = Data("math500", train, test, validation=2)
    learnt = [p.answer for split in ("train", "validation") for p in task.problems(split)]  # type: ignore[arg-type]
    assert sorted(learnt) == ["3", "4", "5", "6", "7", "8"]


def test_rows_that_stand_subject_by_subject_are_put_in_one_random_order(tmp_path: Path) -> None:
    rows = [{"problem": f"q{i}", "answer": str(i), "subject": i // 50} for i in range(200)]
    path = jsonl(tmp_path / "d.jsonl", *rows)
    test = jsonl(tmp_path / "t.jsonl", {"problem": "other", "answer": "1"})
    chosen = {p.columns["subject"] for p in Data("math", path, test, validation=40).problems("validation")}
    assert chosen == {0, 1, 2, 3}  # a subject is missed with a chance below 4 * .75 ** 40 = 4e-5
    first = [p.columns["subject"] for p in Data("math", test=path).problems("test")[:40]]
    assert set(first) == {0, 1, 2, 3}
    assert [p.answer for p in Data("math500", test=path).problems("test")] == [str(i) for i in range(200)]
