"""Checks a second of the grader beside plain math-verify on one core, in the same run.

    python benchmarks/grading.py FILE.jsonl [--rounds 5]

FILE has a column `answer` (and `answer_latex`, where that is the mended one). A response to each row gives, by turns,
the gold answer, the gold answer of another row, the gold answer in another spelling, an unfinished box, no box.
"""

import argparse
import json
import logging
import statistics
import time
from pathlib import Path

from tiltlab.grading.maths import grade_many, grade_maths

logging.disable(logging.WARNING)


def responses(golds: list[str]) -> list[tuple[str, str]]:
    work = "We set up the equation and solve it step by step. " * 20
    texts = []
    for i, gold in enumerate(golds):
        other = golds[(i + 7) % len(golds)]
        texts.append(
            [
                f"{work}\\boxed{{{gold}}}",
                f"{work}\\boxed{{{other}}}",
                f"{work}$\\boxed{{ {gold.replace('frac', 'dfrac')} }}$.",
                f"{work}\\boxed{{{gold}",
                f"{work}I think it is {other}",
            ][i % 5]
        )
    return list(zip(texts, golds, strict=True))


def plain(pairs: list[tuple[str, str]]) -> int:
    from math_verify import parse, verify

    return sum(
        verify(
            parse(f"\\boxed{{{gold}}}", parsing_timeout=None), parse(text, parsing_timeout=None), timeout_seconds=None
        )
        for text, gold in pairs
    )


def seconds(call: object, *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1000)
    arguments = parser.parse_args()
    lines = arguments.file.read_text(encoding="utf-8").splitlines()[: arguments.rows]
    golds = [str(row.get("answer_latex") or row["answer"]) for row in map(json.loads, lines)]
    pairs = responses(golds)
    grade_maths("\\boxed{1+x}", "x+1")  # starts the workers
    plain(pairs[:10])
    ours = statistics.median(seconds(grade_many, pairs) for _ in range(arguments.rounds))
    theirs = statistics.median(seconds(plain, pairs[:200]) for _ in range(arguments.rounds)) * len(pairs) / 200
    print(f"{arguments.file.name}: {len(pairs)} checks")
    print(f"tiltlab      {len(pairs) / ours:8.0f} a second")
    print(f"math-verify  {len(pairs) / theirs:8.0f} a second on one core: {theirs / ours:.1f} times slower")


if __name__ == "__main__":
    main()
