"""What stands before an answer and only names it: "The answer is 5", f(2) = 5, \\text{Area: } 5, x \\in [0, 1].

Left out on purpose: equations. x + y = 5 and x^2 = 4 say more than their right-hand side.
"""

import re
from functools import lru_cache

from tiltlab.grading.formula import equal_constants, far_apart, is_constant
from tiltlab.grading.latex import for_reading
from tiltlab.grading.spelling import ended, squeezed

_VERBS = (
    "has|have|had|needs?|gets?|got|makes?|made|earns?|earned|spends?|spent|sells?|sold|pays?|paid|costs?|takes?|took"
)
_PHRASE = re.compile(
    rf"""(?: .*\#{{4}}\s* | \#{{2,}}\s* | [*_\s]+ | =\s*
        | \\(?:therefore|implies|Rightarrow|Longrightarrow|approx)(?![a-zA-Z])\s*
        | (?:so|thus|hence|therefore|and|then|finally)\b\s*,?\s+
        | (?:the|my|our)?\s*(?:(?:final|correct|required|right)\s+)*(?:answer|result|solution)\b
          (?:\s+(?:is|are|equals)\b)?[\s:=*_]*(?<=[\s:=*_])
        | (?: there\s+(?:are|is|were|was|will\s+be) | [a-z]+\s+(?:will\s+|can\s+|now\s+)*(?:{_VERBS}) | (?:it|that)\s+is
            | approximately | approx\.? | about | roughly | exactly | simply | only | just | equal\s+to
          )\s+(?=[\d\\$.-])
        )""",
    re.IGNORECASE | re.VERBOSE,
)
_DENIES = re.compile(
    rf"""\s*(?:the\s+)?(?:(?:not|never|wrong|incorrect|false|neither|nor|nothing|nobody|none|anything|everything)\b
        | (?:negative|minus|twice|half|either|about|under|over)\s*(?:$|\s[a-z]\b|\s(?:{_VERBS})\b)
        | (?:at\s+(?:most|least)|(?:more|less|greater|fewer|smaller)\s+than)\b)""",
    re.IGNORECASE | re.VERBOSE,
)
"""Names that say something else than that what follows is the answer: not equal to: 5, at most x = 5, twice makes 5."""

_COLON = re.compile(  # but for a list: Ann: 5, Bob: 4
    r'"?\s*([A-Za-z][A-Za-z ]{2,60})"?\s*:\s*"?\s*(?=[^\s"])(?!.*[,;]["\s]*[A-Za-z][A-Za-z ]{2,60}"?\s*:)(.+)'
)
LONGEST_NAME = 80
"""Characters of a name."""

_ARGUMENT = r"(?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\[\]]*\])"
_OPERATORS = re.compile(
    r"[+*/-]|\\(?:cdot|times|div|frac|sqrt|pm|mp|sum|int|prod|le|ge|ne|cup|cap|to|in|begin|equiv|neg|lnot|mid|sin|cos|tan|log|ln)(?![a-zA-Z])"
)


@lru_cache(maxsize=8192)
def labelled(text: str) -> tuple[str, str]:
    """The name that an answer gives itself ("" where it gives none), and the answer.

    text: in its plain spelling (`spelling.plain`).
    """
    label = ""
    for _ in range(6):
        before = text
        text = _without_phrase(text)
        if (parts := _split(text)) is not None:
            label, text = parts
        if text == before:
            break
    return label, ended(text)


def denies(name: str) -> bool:
    """Whether a name says something else than that what follows is the answer."""
    return _DENIES.match(name) is not None


def _without_phrase(text: str) -> str:
    match = _PHRASE.match(text.replace('"', " ")) if text.startswith('"') else _PHRASE.match(text)
    if not match or not match.end() or not text[match.end() :].strip() or denies(match[0]):
        return text
    rest = text[match.end() :]
    return (rest.replace('"', "", 1) if text.startswith('"') and rest.count('"') % 2 else rest).strip()


def _split(text: str) -> tuple[str, str] | None:
    """Name and value of an answer that is one of both."""
    equals = [i for i in _at_top(text, "=") if text[i - 1 : i] not in ("<", ">", "!", ":")]
    if equals:
        name, value = text[: equals[0]].strip(), text[equals[0] + 1 :].strip()
        if not value:
            return None
        if _is_name(name):
            return squeezed(name), value
        if re.fullmatch(r"[a-zA-Z]", value) and len(equals) == 1:
            return value, name  # 2x + 3 = y
        return ("", value) if equal_constants(for_reading(name), for_reading(value)) else None
    if match := re.match(r"([a-zA-Z])\s*\\in(?![a-zA-Z])\s*(.+)", text):
        return match[1], match[2]
    match = _COLON.match(text)
    if match and re.search(r"[A-Za-z]{3}", match[1]) and not denies(match[1]):
        value = match[2]
        return match[1].strip(), value.replace('"', "", 1) if value.count('"') % 2 else value
    if match := re.match(r"(.+?)\s*\\approx(?![a-zA-Z])\s*([\d.,+-]+.*)", text):
        if far_apart(for_reading(match[1]), for_reading(match[2])):
            return None  # \\pi \\approx 9
        named = _is_name(match[1]) and not is_constant(for_reading(match[1]))
        return (squeezed(match[1]), match[2]) if named else ("", match[1])
    return None


def _is_name(name: str) -> bool:
    """f(2), \\det A, P(X > 2), x_1, |A|, Area: something that has a value, and no arithmetic, number or power."""
    if len(name) > LONGEST_NAME or denies(name):
        return False
    bare = re.sub(r"\s*\^\s*\{?\s*(?:-1|\(\d\)|[*])\s*\}?", "", name)
    bare = re.sub(_ARGUMENT + r"|\{[^{}]*\}|\|[^|]*\||_\w", "", bare)
    named = re.search(r"[A-Za-z]|\|[^|]+\|", name) is not None
    return named and re.fullmatch(r"[A-Za-z\\\s'\"_]*", bare) is not None and not _OPERATORS.search(bare)


def _at_top(text: str, sign: str) -> list[int]:
    """Where a sign stands outside all brackets."""
    depth, places = 0, []
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == sign and depth <= 0:
            places.append(i)
    return places
