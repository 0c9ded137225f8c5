"""The grader on answers of every kind, and on text that is out to hang it."""

import signal
import subprocess
import sys
import threading
import time
from math import isnan

import pytest

from tiltlab.grading import maths as grading
from tiltlab.grading.answers import declared_answer, grade_number
from tiltlab.grading.compare import agree, normal
from tiltlab.grading.maths import grade_many, grade_maths
from tiltlab.grading.numbers import quantity
from tiltlab.system.guarded_calls import Failed

SAME = [
    (r"\dfrac{3}{4}", r"\frac34"),
    ("0.75", r"\frac{3}{4}"),
    ("3/4", "0.75"),
    (r"1\frac{3}{4}", "1.75"),
    ("12,345", "12345"),
    (r"12{,}345", "12,345"),
    (r"\$4.50", "4.5"),
    (r"30\%", "30"),
    (r"45^\circ", "45"),
    (r"8 \text{ cm}", "8"),
    (r"8 \mathrm{~m}^3", "8"),
    ("12 apples per day", "12"),
    (r"6.02 \times 10^{23}", "6.02e23"),
    ("5.1e-4", "0.00051"),
    (r"\text{(B)}", "B"),
    ("Tuesday", r"\text{Tuesday}"),
    ("x=4", "4"),
    ("2+2=4", "4"),
    ("(1,4]", r"\left(1, 4\right]"),
    (r"\{2,1\}", r"\{1,2\}"),
    ("3, -3", r"\pm 3"),
    (r"\frac{2}{\sqrt{2}}", r"\sqrt{2}"),
    ("(a-b)(a+b)", "a^2-b^2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    ("0.1000000000000001", "0.1"),
    ("173_8", "173_{8}"),
    ("173", "173_8"),
    ("0042", "42"),
    (r"-1 \le t \le 3", "[-1,3]"),
    ("x^2y^3z^4", "z^4 x^2 y^3"),
]
DIFFERENT = [
    ("0.67", r"\frac{2}{3}"),
    ("3.14", r"\pi"),
    ("1,2", "12"),
    ("1.000", "1000"),
    ("173_9", "173_8"),
    ("[1,4]", "(1,4]"),
    ("1, 2", "1, 2, 3"),
    ("4=5", "5"),
    ("2+2=5", "5"),
    ("5=4", "5"),
    ("n", "5"),
    (r"5 \text{ or } 6", "5"),
    (r"\text{odd}", r"\text{even}"),
    ("1.3e-27", "2.9e-19"),
    ("b-a", "a-b"),
    (r"-\infty", r"\infty"),
    ("5", ""),
]


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same_answer_in_other_words_is_correct(answer: str, gold: str) -> None:
    assert grade_maths(f"Hence \\boxed{{{answer}}}.", gold).reason == "correct"
    assert grade_maths(f"Hence \\boxed{{{gold}}}.", gold).reason == "correct"


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_another_answer_is_wrong(answer: str, gold: str) -> None:
    assert grade_maths(f"Hence \\boxed{{{answer}}}.", gold).reason == "wrong"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"First \boxed{1}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\fbox{3}", "3"),
        (r"\boxed 3", "3"),
        (r"\boxed{3", None),
        (r"\boxed{}", None),
        ("There are 12 apples and 7 pears, I do not know", None),
        (" ".join(map(str, range(101))), None),
        ("The answer is 12.", "12"),
        ("Some work.\n**Final Answer:** 12", "12"),
        ("Some work.\nSo the answer is $12$", "$12$"),
        ("Some work.\n#### 12", "12"),
        ("The answer is 12.\nOr perhaps not.", None),
        ("The answer is 12, and \\boxed{3", None),
        ("", None),
    ],
)
def test_what_counts_as_the_answer(text: str, answer: str | None) -> None:
    assert declared_answer(text) == answer


def test_the_lenient_mode_takes_what_it_finds() -> None:
    text = "We get $x = 12$ at last, I believe"
    assert grade_maths(text, "12").reason == "no_answer"
    assert grade_maths(text, "12", "lenient").reason == "correct"
    assert grade_maths("I have no idea", "12", "lenient").reason == "no_answer"


def test_answers_that_are_equal_at_a_glance_have_one_normal_form_and_vote_together() -> None:
    boxed = [grade_maths(f"\\boxed{{{answer}}}", "3").answer for answer in ("0.5", r"\frac12", "1/2", ".50")]
    found = [grade_maths(text, "3", "lenient").answer for text in ("we get $0.50$ then", r"we get $\frac{1}{2}$ then")]
    assert set(boxed + found) == {"0.5"}
    assert {grade_number(f"\\boxed{{{zero}}}", "3", "boxed").answer for zero in ("-0", "0.0", "0")} == {"0"}


def test_equal_plain_answers_vote_together() -> None:
    for same in (["1,000", "1000.0", r"1000 \text{ m}", r"\$1000"], [r"\dfrac12", r"\frac{1}{2}", "0.5", "1/2"]):
        assert len({normal(answer) for answer in same}) == 1
    assert [normal(x) for x in ("-2.50", "1/3", "3e2")] == ["-2.5", "1/3", "300"]


def test_what_is_certain_needs_no_algebra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "call_all", lambda *arguments, **_: [1 / 0 for _ in arguments[1]])
    assert grade_maths(r"\boxed{18}", "18").reason == "correct"
    assert grade_maths(r"\boxed{19}", "18").reason == "wrong"
    assert agree("0.1000000001", "0.1") is None  # may be rounding
    assert quantity("9" * 100) is None


HOSTILE = [
    r"\boxed{9^{9^{9^{9}}}}",
    r"\boxed{9**9**9**9}",
    r"\boxed{3^{123456789}}",
    r"\boxed{(10^8)!}",
    r"\boxed{\sum_{k=1}^{10^8} \frac{1}{k}}",
    r"\boxed{" + "{" * 10000 + "1" + "}" * 10000 + "}",
    r"\boxed{" + "(" * 10000 + "}",
    r"\boxed{" * 3000,
    r"\boxed{" + "9" * 20000 + "}",
    r"\boxed{__import__('os').abort()}",
    "\x00\ud800 \\boxed{\x00}",
    "$" + "1$ $" * 5000,
    "#" * 20000,
    "the answer is " * 2000,
]


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_hostile_text_hangs_nothing(mode: grading.Mode) -> None:
    start = time.perf_counter()
    grades = grade_many([(text, "7") for text in HOSTILE], mode)
    assert all(grade.reason != "correct" for grade in grades)
    # at most half of them can reach a deadline, and two or more workers share them
    assert time.perf_counter() - start < grading.DEADLINE * len(HOSTILE) / 2 + 10
    assert grade_maths(r"\boxed{(x+1)^2}", "x^2+2x+1", mode).reason == "correct"


@pytest.mark.parametrize(
    "piece", ["~", "` ", "\n", "\\, ", '" ', "A.**", "\\left", "base 2 ", "x = ", "Ann: 5, ", "{,}", "\\pm "]
)
def test_no_answer_is_slow_to_read(piece: str) -> None:
    start = time.process_time()
    agree((piece * 1000)[:1000], "7")
    assert time.process_time() - start < 1.0  # 0.05 on a quiet machine; ~ once took 43 seconds


def test_an_answer_past_the_guards_is_right_to_the_letter() -> None:
    assert grade_maths(r"\boxed{2^{100000}}", r"2^{100000}").reason == "correct"
    assert grade_maths(r"\boxed{4^{50000}}", r"2^{100000}").reason == "wrong"


def test_from_many_threads_beside_an_alarm() -> None:
    rang, found = [], []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        pairs = [(r"\boxed{(x+1)^2}", "x^2+2x+1"), (r"\boxed{x}", "7")]
        threads = [threading.Thread(target=lambda: found.append(grade_many(pairs))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0 if rang else 1.1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [[grade.reason for grade in grades] for grades in found] == [["correct", "wrong"]] * 8
    assert rang == [True]


def test_what_nobody_knows_has_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "call_all", lambda _, asks, *__, **___: [Failed("timeout", "") for _ in asks])
    grade = grade_maths(r"\boxed{(x+1)^2}", "x^2+2x+1")
    assert grade.reason == "timeout"
    assert isnan(grade.reward)


def test_importing_the_algebra_leaves_everybody_elses_log_alone() -> None:
    code = """
import logging
from tiltlab.grading import equality
logging.getLogger("mine").warning("heard")
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stderr.strip() == "heard"


def test_a_worker_says_nothing_of_time_limits_that_are_off() -> None:
    code = """
from tiltlab.grading.maths import grade_maths
assert grade_maths(r"\\boxed{x + x}", "2x").reason == "correct"
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert found.stderr == ""
