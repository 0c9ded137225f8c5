"""One spelling for what LaTeX, Markdown and Unicode dress differently. Nothing here changes what an answer says.

In the plain spelling words stand in quotes where they were text (5\\text{ cm} is 5" cm"), a dollar sign is \\$ only
where it is money, spaces are single, and a space between two digits stays: 3 4 is not 34.

Left out on purpose: what an answer means (numbers.py, words.py), and comparing (compare.py).
"""

import re
from functools import lru_cache

from tiltlab.grading.characters import in_ascii

BASES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "sixteen")
"""Bases of numerals that are named in words."""

LONGEST = 1000
"""Characters of an answer that is worth spelling anew."""

_TEXT = r"\\(?:text|textbf|textrm|textit|textsf|texttt|textnormal|mathrm|mathsf|mathtt|mbox|hbox|emph|operatorname\*?)"
_DRESS = (
    r"\\(?:underline|uline|mathbf|boldsymbol|bm|mathit|boxed|fbox|ensuremath"
    r"|textcolor\s*\{[^{}]*\}|colorbox\s*\{[^{}]*\})"
)
_INSIDE = r"\s*\{((?:[^{}\\]|\\.|\{[^{}]*\})*)\}"

_SEPARATED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:(?:\\[,;:]|,\\!\s*|\{,\}|\\ |~| )\d{3})+)(?!\s*[\d/]|\\frac)")
_IS_NUMBER = re.compile(r"\s*-?\d+(?:\.\d+)?\s*")  # what most answers are

_STEPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\\\\s*\[\s*\d*\.?\d+\s*(?:pt|em|ex|mm|cm)\s*\]", r"\\\\ "),
        (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
        (r"\\\\(?=[\s$]*$)|\\(?:newline|par)\b", " "),  # a line that ends where the answer does
        (r"\\(?:left|right|[bB]igg?[lrm]?)\s*\.", " "),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])", ""),
        (
            r"\\(?:displaystyle|textstyle|limits|nolimits|mathstrut|strut|bf|rm|it|sf|tt|par|noindent|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![a-zA-Z])",
            " ",
        ),
        (r"\\(?:tag\*?|label|hspace\*?|vspace|phantom|hphantom|vphantom)\s*\{[^{}]*\}", " "),
        (r"\\color\s*\{[^{}]*\}|\\color\s*\[[^\]]*\]\s*\{[^{}]*\}", " "),
        (r'"?\b(?:US|A|C|AU|CA|NZ|HK)"?\s*\\?\$(?=\s*\d)', r"\\$"),
        (r"(?<!\\)\$", ""),
        (r"(?<!\\)\\[()\[\]]", " "),
        (r"\{,\}", "."),  # thousands have been dealt with: a decimal comma
        (r"\{([:.;])\}", r"\1"),
        (r",\\!", ","),
        (r"\\!", ""),
        (
            r"(?:(?<!\\)\\(?:[,;:>]|(?=\s))|~|\\(?:q?quad|enspace|thinspace|medspace|thickspace|space|nobreakspace)(?![a-zA-Z])|\s)+",
            " ",
        ),
        (r"\\[dtc]frac|\\(?:nice|s|x)frac", r"\\frac"),
        (r"\\frac\s*([0-9a-zA-Z])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9a-zA-Z])", r"\1{\2}"),
        (r"\\frac\s*(\{[^{}]*\})\s*(\{)", r"\\frac\1\2"),
        (r"\{\s*([^{}]*?)\s*\\over\s*([^{}]*?)\s*\}", r"\\frac{\1}{\2}"),
        (r"\{\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*\}", r"\\binom{\1}{\2}"),
        (r"\\root\s*(\w+|\{[^{}]*\})\s*\\of\s*(\w|\{[^{}]*\})", r"\\sqrt[\1]{\2}"),
        (r"(?<![\\a-zA-Z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(\\sqrt\s*(?:\[[^\[\]]*\])?)\s*(\d|[a-zA-Z](?![a-zA-Z]))", r"\1{\2}"),
        (
            r"\\(?:degree|textdegree)(?![a-zA-Z])|(?<=[\d}])\s*\^\s*(?:\{\s*)?(?:\\circ|\\degree|\"?o\"?(?![a-zA-Z]))\s*\}?",
            r"^\\circ ",
        ),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        (r"\\%", "%"),
        (r"\\(?:ldots|dots|cdots|dotsc|dotsb)(?![a-zA-Z])|…", "..."),
        (r"\\(?:leq|leqslant)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\neq(?![a-zA-Z])|\\not\s*=", r"\\ne "),
        (r"\\lbrace(?![a-zA-Z])", r"\\{"),
        (r"\\rbrace(?![a-zA-Z])", r"\\}"),
        (r"\\lbrack(?![a-zA-Z])", "["),
        (r"\\rbrack(?![a-zA-Z])", "]"),
        (r'(?<=:\d\d)[\s"]*[aA][\s".]*[mM]\b[".]*', ' "am"'),
        (r'(?<=:\d\d)[\s"]*[pP][\s".]*[mM]\b[".]*', ' "pm"'),
        (r"\\varnothing(?![a-zA-Z])", r"\\emptyset "),
        (r"\\begin\s*\{small", r"\\begin{p"),
        (r"\\end\s*\{small", r"\\end{p"),
        (r"(?<![\w)*])\*\*(?=[^\s*])(.+?)(?<=[^\s*])\*\*(?![\w(*])", r"\1"),
        (r"`+", ""),
        (rf'(?<![\s"])[\s"]*(?:\(\s*)?(?:in\s+)?base[\s"]*(\d+|{"|".join(BASES)})(?:\s*\))?[\s"]*$', r"_{\1}"),
        (r"\\\s*$", ""),
        (r"\s+", " "),
    )
)


@lru_cache(maxsize=8192)
def plain(answer: str) -> str:
    """The plain spelling of an answer; one longer than `LONGEST` stays as it is, but for spaces around it."""
    if len(answer) > LONGEST or _IS_NUMBER.fullmatch(answer):
        return answer.strip()
    text = re.sub(r"\s+", " ", in_ascii(answer))  # long runs of spaces are slow in what follows
    text = _SEPARATED.sub(lambda number: re.sub(r"\D", "", number[0]), text)
    text = _undressed(text)
    for pattern, by in _STEPS:
        text = pattern.sub(by, text)
    return ended(_unbraced(text))


def ended(text: str) -> str:
    """Without the punctuation that ends a sentence and not an answer."""
    text = text.strip()
    if text.endswith('"') and (inside := ended(text[:-1])) != text[:-1].rstrip():
        return f'{inside}"' if inside.count('"') % 2 else inside
    while text and (text[-1] in ",;:" or (text[-1] == "." and not text.endswith("..."))):
        text = text[:-1].rstrip()
    return text


def squeezed(text: str) -> str:
    """A plain spelling to be compared letter by letter.

    Without spaces, but for those between two digits or two letters, and without quotes or the braces of a single sign.
    """
    text = re.sub(r"\^\{(\w|\\?[A-Za-z]+)\}", r"^\1", text.replace('"', " "))
    text = re.sub(r"_\{(\w)\}", r"_\1", text)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(?<=\d) (?!\d)|(?<=[a-zA-Z]) (?![a-zA-Z\d])|(?<![a-zA-Z\d]) ", "", text)


def _undressed(text: str) -> str:
    """Without the commands that change how their argument looks; text in quotes, unless a number stands in it."""
    for _ in range(8):  # as deep as they are nested
        before = text
        text = re.sub(_DRESS + _INSIDE, r"\1", text)
        text = re.sub(_TEXT + _INSIDE, _quoted, text)
        if text == before:
            break
    return text


def _quoted(match: re.Match[str]) -> str:
    inside = match[1].replace('"', "")
    if not re.search(r"\d", inside):
        return f'"{inside}"'
    return f" {inside} " if re.search(r"[\\^_=$]", inside) else re.sub(r"[A-Za-z][A-Za-z ]*", r'"\g<0>"', f" {inside} ")


def _unbraced(text: str) -> str:
    """Without braces around all of it, or around one number or letter that they do nothing for."""
    text = re.sub(r"(?<![\w\]}^_])\{([^{}\\]*)\}(?=\s*$|[\s,)])", r"\1", text.strip())
    while text.startswith("{") and text.endswith("}") and _closes_last(text):
        text = text[1:-1].strip()
    return text


def _closes_last(text: str) -> bool:
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return i == len(text) - 1
    return False
