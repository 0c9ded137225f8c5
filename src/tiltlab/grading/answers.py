"""Reading an answer out of a response, and comparing numbers, without trusting the text.

Left out on purpose: what an answer means, but for plain numbers; mathematics is compared by maths.py.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Literal

from tiltlab.grading.characters import in_ascii
from tiltlab.types import Grade

Reading = Literal["boxed", "first_line"]

LONGEST = 40
"""Characters of a number that is worth reading: digit runs without end are how graders are hung."""

END = 200
"""Characters at the end of a response in which special tokens are looked for."""

LONGEST_LINE = 1000
"""Characters of a last line that may declare an answer."""


def grade_number(text: str, gold: str, reading: Reading) -> Grade:
    """Whether the number read out of a response equals the gold answer, as plain numbers.

    reading: "boxed" is the last complete box, "first_line" the response's first line.

    `Grade.answer` is the number in plain decimals; "no_answer" where none was read.
    """
    answer = {"boxed": last_boxed, "first_line": first_line}[reading](text)
    value = number(answer) if answer is not None else None
    if value is None:
        return Grade(0.0, None, "no_answer")
    correct = value == number(gold)
    shown = f"{value.normalize() + 0:f}"  # + 0: -0 is 0, and votes with it
    return Grade(float(correct), shown, "correct" if correct else "wrong")


def last_boxed(text: str) -> str | None:
    """What stands in the last complete \\boxed{...}, perhaps nothing; None where there is none. One left open is not an
    answer."""
    insides, _ = _boxes(text)
    return insides[-1] if insides else None


def _boxes(text: str) -> tuple[list[str], bool]:
    """What stands in the complete boxes, in the order in which they begin, and whether one was left open.

    One pass with a stack: to look for each box's end anew would be quadratic in boxes left open.
    """
    first = _BOX.search(text)
    spans: list[tuple[int, int]] = []
    opened: list[int | None] = []  # where the inside of a box begins, None for other braces
    for match in _BRACE.finditer(text, first.start()) if first else ():
        if match[0][-1] == "{" and match[0] != "\\{":
            opened.append(None if match[0] == "{" else match.end())
        elif match[0] == "}" and opened and (start := opened.pop()) is not None:
            spans.append((start, match.start()))
    return [text[start:end].strip() for start, end in _outermost(text, spans)], any(opened)


def _outermost(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The boxes that stand in no other, but for one that is all that the other holds."""
    kept: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if not kept or start > kept[-1][1]:
            kept.append((start, end))
        elif _ONLY_A_BOX.fullmatch(text[kept[-1][0] : start]) and not text[end + 1 : kept[-1][1]].strip(" \n$."):
            kept[-1] = (start, end)
    return kept


_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_ONLY_A_BOX = re.compile(rf"[\s$]*{_BOX.pattern}")
_BRACE = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|\\\\(?!boxed|fbox|framebox)|\\[{}]|[{}]")
_NOTHING = re.compile(r"(?:[.…\s]|\\[lc]?dots|\\(?:quad|[;, ]))*")


def declared_answer(text: str) -> str | None:
    """What the strict mode reads of a response; None where it declares no answer.

    That is the last complete box, or where no box was filled or left open, <answer>...</answer>, or what the last line
    declares.
    """
    text = text.rstrip()
    if text.endswith((">", "]")):
        text = text[:-END] + _END_TOKENS.sub("", text[-END:])
    boxed, left_open = _boxes(text)
    if filled := [inside for inside in boxed if not _NOTHING.fullmatch(inside)]:
        return filled[-1]  # an empty box, or one of dots, only speaks of boxes
    if bare := _BARE_BOX.findall(text):
        return str(bare[-1]).rstrip(".,;")
    if left_open:
        return None
    tags = list(re.finditer(r"</?answer>", text, re.IGNORECASE))
    for opening, closing in zip(reversed(tags[:-1]), reversed(tags), strict=False):
        if closing[0][1] == "/" != opening[0][1]:
            inside = text[opening.end() : closing.start()].strip()
            return _declared(inside) or _short(inside)
    return _declared(text)


_END_TOKENS = re.compile(r"(?:\s*(?:</s>|<[|｜][^<>]{1,40}[|｜]>|<(?:eos|end_of_turn|\|?endoftext\|?)>|\[EOS\]))+\s*$")

_BARE_BOX = re.compile(  # the word after "the \boxed command" is no answer
    r"\\(?:boxed|fbox)(?![a-zA-Z])\s*((?=[-+]?[\d.\\]|[A-Za-z](?![A-Za-z]))(?:(?!\\[)\]])[^\s$])+)"
)

_DECLARES = re.compile(
    r"""[\W_]*(?:(?:so|thus|hence|therefore|and|then|finally|in\ conclusion)\b[,:]?\s+)?(?:(?:the|my|our)\s+)?
        (?:(?:final|correct|required|numerical)\s+)*(?:answer|(?:option|choice)(?=\s+is))\b[\s*_]*
        (?:(?:to\ (?:the|this)\ (?:problem|question)\s+)?(?:is|:|=)|\Z)[\s*_:=]*
        | \s*\#{3,}\s*(?=[-+$\\(]*\d)
        | [*_\s]*A(?:nswer)?\s*:\s*""",
    re.IGNORECASE | re.VERBOSE,
)

_FAREWELL = re.compile(
    r"\s*(?:(?:please\s+)?let me know\b|(?:i\s+)?hope (?:it|this|that)\b|feel free\b|if you (?:have|need)\b)[^\n]*$",
    re.IGNORECASE,
)
_END_OF_PROOF = re.compile(r"\s*(?:\$?\\(?:blacksquare|square|qed|Box)\s*\$?|[∎■□▪])\s*$")


def _declared(text: str) -> str | None:
    """What the last line declares: "The answer is 7.", "#### 7"; or stands alone on it, below a heading that says
    so."""
    end = _END_OF_PROOF.sub("", _FAREWELL.sub("", in_ascii(text[-4 * LONGEST_LINE :].strip())))
    lines = [line for line in end.rsplit("\n", 6) if re.search(r"[^\W_]", line)]
    if not lines or len(lines[-1]) > LONGEST_LINE:
        return None
    last = re.sub(
        r"(?<!\w)\*\*(?=\S)(.+?)(?<=\S)\*\*(?!\w)|(?<!\w)__(?=\S)(.+?)(?<=\S)__(?!\w)", r"\1\2", lines[-1]
    ).strip()
    starts = [0, *(match.end() for match in re.finditer(r"(?<=[.!?])\s+", last))]
    for start in [0, *reversed(starts[1:])]:  # the whole line, or the last of its sentences that declares
        if (answer := _named(last[start:])) is not None:
            return answer or None
    above = lines[-2] if len(lines) > 1 else ""
    heading = re.fullmatch(r"[\W_]*(?:the\s+)?(?:final|correct)?\s*answer\b(?:\s+is)?[\W_]*", above, re.IGNORECASE)
    return _bare(_short(last) or "") or None if heading else None


def _named(sentence: str) -> str | None:
    """What a sentence that names the answer says it is, perhaps nothing; None for another sentence."""
    match, rest = _DECLARES.match(sentence), sentence
    if match is None:
        return None
    while match and match.end():
        rest = rest[match.end() :].strip()
        match = _DECLARES.match(rest)
    return _bare(rest)


def _bare(answer: str) -> str:
    return re.sub(r"(?<!\.)\.$", "", re.sub(r"[\s*_]+$", "", answer))


def _short(text: str) -> str | None:
    """A text that is an answer and no argument."""
    return text if text and "\n" not in text and len(text) <= 200 else None


def first_line(text: str) -> str | None:
    """The first line, which must be the answer and nothing else; None where it is empty."""
    return text.strip().split("\n", 1)[0].strip() or None


def number(text: str) -> Decimal | None:
    """The number that `text` is, thousands commas and a dollar or percent sign aside; None where it is none."""
    text = text.strip().rstrip(".").replace("\\$", "").replace("\\%", "").strip("$% ")
    if len(text) > LONGEST or not re.fullmatch(r"[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?", text):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None
