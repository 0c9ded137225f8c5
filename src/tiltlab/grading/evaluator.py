"""Reading a formula in LaTeX as the value that it has: a recursive descent over the part that formulas are mostly
written in. What is not understood, or can be read in two ways (1/2x), is declined.

Left out on purpose: relations, sets, sums, integrals, and what the values are for (formula.py).
"""

import cmath
import math
import re
from hashlib import blake2b
from typing import Any

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<letter>[a-zA-Z])|(?P<sign>[-+*/^_()\[\]{}|,]))"
)
_FUNCTIONS = {
    **{f"\\{name}": name for name in ("sin", "cos", "tan", "exp", "sinh", "cosh", "tanh")},
    **{f"\\arc{name}": f"a{name}" for name in ("sin", "cos", "tan")},
    "\\ln": "log",
    "\\cot": "tan",
    "\\sec": "cos",
    "\\csc": "sin",
}
"""Their names in cmath and in mpmath."""

_RECIPROCAL = ("\\cot", "\\sec", "\\csc")
_INVERSE = ("\\sin", "\\cos", "\\tan")
_DECORATED = frozenset(("\\dot", "\\ddot", "\\hat", "\\vec", "\\bar", "\\tilde", "\\mathcal", "\\mathbb", "\\overline"))
_GREEK = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau upsilon
    phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell
"""
_SYMBOLS = frozenset(f"\\{name}" for name in _GREEK.split())
_PRODUCT = ("*", "\\cdot", "\\times")
_CLOSES = {"(": ")", "[": "]", "{": "}"}


class NotUnderstood(Exception):
    """A formula outside of what is read here."""


def tokens_of(formula: str) -> list[str]:
    """Numbers, commands, letters and signs, in order.

    Raises NotUnderstood for signs that no formula has, and beyond 300 tokens.
    """
    tokens: list[str] = []
    end, formula = 0, formula.rstrip()
    while end < len(formula):
        match = _TOKEN.match(formula, end)
        if not match or len(tokens) > 300:
            raise NotUnderstood
        tokens.append(match[0].strip())
        end = match.end()
    return tokens


class Floats:
    """Arithmetic in complex floats, with positive variables.

    scale: the variables' values are from 0.7 to 1.3 times this.
    """

    functions: Any = cmath
    pi, e, i, nan = math.pi, math.e, 1j, cmath.nan
    number = float

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def variable(self, name: str) -> Any:
        """A value made from the name, so that it is the same wherever the name stands."""
        return self._scale * (0.7 + 0.6 * _hashed(f"{name} {self._scale}"))


class Digits:
    """Arithmetic in many digits, with complex variables.

    functions: an mpmath context, as precise as its caller has set it.
    turn: a number; each gives the variables other values.
    """

    def __init__(self, functions: Any, turn: int) -> None:
        self.functions, self.number = functions, functions.mpf
        self.pi, self.e, self.i, self.nan = +functions.pi, +functions.e, functions.mpc(0, 1), functions.nan
        self._turn = turn

    def variable(self, name: str) -> Any:
        """A value made from the name, of size 0.5 to 1.5, in any direction of the complex plane."""
        size, angle = 0.5 + _hashed(f"{name} {self._turn} size"), _hashed(f"{name} {self._turn} angle")
        return self.functions.mpf(size) * self.functions.expjpi(2 * self.functions.mpf(angle))


def _hashed(name: str) -> float:
    return int.from_bytes(blake2b(name.encode(), digest_size=6).digest(), "big") / 2**48


class Reader:
    """The value of a formula.

    tokens: of the formula (`tokens_of`).
    arithmetic: `Floats` or `Digits`, whose numbers the value is one of.
    """

    def __init__(self, tokens: list[str], arithmetic: Any) -> None:
        self._tokens, self._with, self._at = tokens, arithmetic, 0

    def all(self) -> Any:
        """The value of all tokens.

        Raises NotUnderstood, and what the arithmetic raises where there is no value.
        """
        value = self._sum()
        if self._at < len(self._tokens):
            raise NotUnderstood
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str | None = None) -> str:
        token = self._peek()
        if not token or (wanted is not None and token != wanted):
            raise NotUnderstood
        self._at += 1
        return token

    def _sum(self) -> Any:
        sign = -1 if self._peek() == "-" else 1
        if self._peek() in ("+", "-"):
            self._take()
        total = sign * self._product()
        while self._peek() in ("+", "-"):
            sign = -1 if self._take() == "-" else 1
            total += sign * self._product()
        return total

    def _product(self) -> Any:
        value = self._power()
        divided = False
        while (token := self._peek()) and token not in ("+", "-", ")", "]", "}", "|", ","):
            if token == "/":
                if divided:
                    raise NotUnderstood
                self._take()
                value /= self._power()
                divided = True
            elif token in _PRODUCT:
                self._take()
                value *= -self._power() if self._peek() == "-" and self._take() else self._power()
                divided = False
            elif divided:
                raise NotUnderstood  # 1/2x
            else:
                value *= self._power()
        return value

    def _power(self) -> Any:
        base = self._base()
        if self._peek() == "^":
            self._take()
            base = self._raised(base, self._argument())
            if self._peek() == "^":
                raise NotUnderstood
        return base

    def _argument(self) -> Any:
        """What a command or ^ takes: a group, or one sign."""
        if self._peek() == "{":
            return self._group("{")
        token = self._peek()
        if token.replace(".", "").isdigit() and len(token) > 1:
            raise NotUnderstood  # x^10 is x^1 0 to LaTeX, and x^{10} to whoever wrote it
        return self._base()

    def _group(self, opening: str) -> Any:
        self._take(opening)
        value = self._sum()
        self._take(_CLOSES[opening])
        return value

    def _base(self) -> Any:
        token = self._peek()
        if token in _CLOSES:
            return self._group(token)
        if token == "|":
            self._take()
            value = abs(self._sum())
            self._take("|")
            return value
        self._take()
        if token[0].isdigit() or token[0] == ".":
            if self._peek()[:1].isdigit():
                raise NotUnderstood
            return self._with.number(token)
        return self._named(token)

    def _named(self, token: str) -> Any:
        if token in ("\\frac", "\\sqrt"):
            return self._fraction() if token == "\\frac" else self._root()
        if token in _FUNCTIONS:
            return self._function(token)
        if token == "\\log":
            return self._logarithm()
        if token == "\\pi":
            return self._with.pi
        name = token
        if token in _DECORATED:
            name += self._raw()
        elif not (token.isalpha() or token in _SYMBOLS):
            raise NotUnderstood
        if self._peek() == "_":
            self._take()
            name += "_" + self._raw()
        return {"e": self._with.e, "i": self._with.i}.get(name) or self._with.variable(name)

    def _raw(self) -> str:
        """The letters of a group or sign, which only name something."""
        if self._peek() != "{":
            return self._take()
        self._take()
        name = ""
        while self._peek() != "}":
            token = self._take()
            if token == "{":
                raise NotUnderstood
            name += token
        self._take()
        return name

    def _fraction(self) -> Any:
        over = self._argument()
        return over / self._argument()

    def _root(self) -> Any:
        degree: Any = self._with.number(2)
        if self._peek() == "[":
            degree = self._group("[")
        inside = self._argument()
        if inside.imag == 0 and inside.real < 0 and degree.real % 2 == 1 and degree.imag == 0:
            return -((-inside.real) ** (self._with.number(1) / degree.real))
        return self._raised(inside, self._with.number(1) / degree)

    def _function(self, token: str) -> Any:
        function, power = _FUNCTIONS[token], None
        if self._peek() == "^":
            self._take()
            power = self._argument()
            if power == -1 and token in _INVERSE:
                function, power = f"a{function}", None
        value = getattr(self._with.functions, function)(self._of_function())
        value = 1 / value if token in _RECIPROCAL else value
        return value if power is None else self._raised(value, power)

    def _logarithm(self) -> Any:
        self._take("_")  # without a base it is read in two ways
        base = self._argument()
        log = self._with.functions.log
        return log(self._of_function()) / log(base)

    def _of_function(self) -> Any:
        """(x), or the numbers and letters that follow up to the next sign, bracket or function."""
        if self._peek() in _CLOSES:
            return self._power() if self._peek() == "{" else self._group(self._peek())
        value = -1 if self._peek() == "-" and self._take() else 1
        start = self._at
        while (token := self._peek()) and token not in ("+", "-", "/", ")", "]", "}", "|", ",", *_PRODUCT):
            if token in _FUNCTIONS and self._at > start:
                break
            if token in ("(", "[", "{"):
                raise NotUnderstood  # \sin x(y)
            value *= self._power()
        if self._at == start:
            raise NotUnderstood
        return value

    def _raised(self, base: Any, power: Any) -> Any:
        if not base:
            return base if power.real > 0 else self._with.nan
        return (base + 0 * self._with.i) ** power
