"""Characters that say what some LaTeX says: x² is x^{2}, √2 is \\sqrt{2}, ½ is \\frac{1}{2}, − is a minus sign,
full-width digits are digits, and what has no width is nothing.

Left out on purpose: everything that plain ASCII can spell in two ways (spelling.py).
"""

import re
import unicodedata

_TWINS = str.maketrans(
    {
        **dict.fromkeys("−–—‒―‐‑﹣－", "-"),
        **dict.fromkeys("\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2007\u2008\u205f\u3000\t", " "),
        **dict.fromkeys("\u2006\u2009\u200a\u202f", "\\,"),
        **dict.fromkeys("∞", "\\infty "),
        **dict.fromkeys("×✕", "\\times "),
        **dict.fromkeys("·⋅∙•", "\\cdot "),
        **dict.fromkeys("≤⩽≦", "\\le "),
        **dict.fromkeys("≥⩾≧", "\\ge "),
        **dict.fromkeys("≈≃≅", "\\approx "),
        **dict.fromkeys("°º˚", "^\\circ "),
        **dict.fromkeys("∅⌀", "\\emptyset "),
        **dict.fromkeys("“”„", '"'),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("⁄∕", "/"),
        "÷": "\\div ",
        "≠": "\\ne ",
        "±": "\\pm ",
        "∓": "\\mp ",
        "∪": "\\cup ",
        "∩": "\\cap ",
        "∈": "\\in ",
        "∉": "\\notin ",
        "⊂": "\\subset ",
        "⊆": "\\subseteq ",
        "∴": "\\therefore ",
        "⇒": "\\Rightarrow ",
        "→": "\\to ",
        "∶": ":",
        "。": ".",
        "、": ",",
        "′": "'",
        "″": "''",
        "¢": "\\textcent ",
        "⟨": "\\langle ",
        "⟩": "\\rangle ",
        "∠": "\\angle ",
        "△": "\\triangle ",
        "∑": "\\sum ",
        "∫": "\\int ",
        "∂": "\\partial ",
        "ℝ": "\\mathbb{R} ",
        "ℤ": "\\mathbb{Z} ",
        "ℕ": "\\mathbb{N} ",
        "ℚ": "\\mathbb{Q} ",
        "ℂ": "\\mathbb{C} ",
    }
    | {
        letter: f"\\{name} "
        for names, letters in (
            ("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi", "αβγδεζηθικλμνξ"),
            ("pi rho sigma tau upsilon phi chi psi omega Gamma Delta Theta Lambda", "πρστυφχψωΓΔΘΛ"),
            ("Xi Pi Sigma Phi Psi Omega varphi vartheta varepsilon", "ΞΠΣΦΨΩϕϑϵ"),
        )
        for name, letter in zip(names.split(), letters, strict=True)
    }
)

_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₒₓₕₖₗₘₙₚₛₜᵢⱼ"
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}


def in_ascii(text: str) -> str:
    """The text with such characters spelt in LaTeX; what has no twin stays as it is."""
    if text.isascii():
        return text
    text = re.sub(f"[{_RAISED}]+", lambda run: "^{" + _plain(run[0]) + "}", text)
    text = re.sub(f"[{_LOWERED}]+", lambda run: "_{" + _plain(run[0]) + "}", text)
    text = re.sub("[¼-¾⅐-⅞↉]", _vulgar, text)
    text = re.sub("(?:\\d[\u0304\u0305])+", lambda run: "\\overline{" + re.sub(r"\D", "", run[0]) + "}", text)
    text = re.sub("(\\d)\u0307", r"\\dot{\1}", text)
    text = text.translate(_TWINS)  # before NFKC, which makes an o of º
    text = unicodedata.normalize("NFKC", text).translate(_TWINS)  # and after it, for ℃ and 𝜋
    text = re.sub(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]|\\[a-z]+))", _root, text)
    return "".join(character for character in text if unicodedata.category(character) not in ("Cf", "Co", "Cn", "So"))


def _plain(run: str) -> str:
    return unicodedata.normalize("NFKC", run).translate(_TWINS).replace("−", "-")


def _vulgar(fraction: re.Match[str]) -> str:
    over, under = unicodedata.normalize("NFKC", fraction[0]).split("⁄")
    return f"\\frac{{{over}}}{{{under}}}"


def _root(root: re.Match[str]) -> str:
    return f"\\sqrt{_ROOTS[root[1]]}{{{next(inside for inside in root.groups()[1:] if inside is not None)}}}"
