"""How an arm looks in every figure: a colour that tells its family, and within the family a shade, a dash and a symbol,
so that nobody has to tell shades apart.

One palette serves light and dark pages: each colour stands out from both (a contrast of 3 and more, WCAG 1.4.11).
"""

from typing import Literal, get_args

from tiltlab.report.load import Study
from tiltlab.storage.files import Json
from tiltlab.storage.natures import Trained

Family = Literal["base", "null control", "sampler", "likelihood", "reward", "own reward", "objective"]

_SHADES: dict[Family, tuple[str, ...]] = {
    "base": ("#78838f",),
    "null control": ("#a8763e",),
    "sampler": ("#0d9488", "#6b9126", "#1490b8", "#3f9b5f", "#4f8f80", "#14a08a"),
    "likelihood": ("#d9484f", "#e06a1b", "#c58412", "#e0527a", "#b5561d", "#c2652f"),
    "reward": ("#3b82f6", "#8b6cf0", "#2a8fd6", "#a35fe0", "#4f6df0", "#5b7fd6"),
    "own reward": ("#8a8a2e", "#7d7a55", "#a08c1e", "#6f7f3a"),
    "objective": ("#d455b0", "#b84fc4"),
}
_DASHES = (None, "dot", "dashdot", "longdash")
"""In curves; plain dashes are left to what failed."""

STROKES = {None: "none", "dot": "2 3", "dashdot": "8 3 2 3", "longdash": "11 4", "longdashdot": "11 3 2 3"}
"""The dashes as a page's own drawing has them."""

_SYMBOLS = ("circle", "square", "triangle-up", "cross", "star")
_HOLLOW = ("diamond", "diamond-open", "diamond-tall", "diamond-wide-open", "diamond-wide", "diamond-tall-open")

IN_WORDS = (
    "Grey: the base. Brown: the null control, which nothing drives. Teal and green: samplers of the untrained base. "
    "Red and orange: trained on the base’s own likelihood. Blue and violet: given the reward. Olive: rewarded by "
    "votes, by form, by chance or for being sure. Pink: other objectives."
)


def family(config: Json) -> Family:
    """What an arm has to go on.

    config: the arm, as the recipe has it.
    """
    match config:
        case {"arm": "base"}:
            return "base"
        case {"arm": "tempered", "alpha": 1}:
            return "null control"
        case {"signal": "vote" | "random" | "format"} | {"arm": "entropy_minimization"}:
            return "own reward"
        case {"arm": "objective"}:
            return "objective"
        case {"arm": "task_reward" | "tilted"} | {"arm": "best_of_n", "by": "reward"}:
            return "reward"
        case {"arm": "power_mcmc" | "power_smc", "beta": float() | int()}:
            return "reward"
    return "likelihood" if is_trained(config) else "sampler"


def is_trained(config: Json) -> bool:
    """Whether an arm trains, as the recipe has it."""
    return config["arm"] in get_args(Trained)


def arm_colours(study: Study) -> dict[str, str]:
    """A colour for each arm by name, the same in every figure of a study."""
    return {name: _SHADES[of][at % len(_SHADES[of])] for name, of, at in _places(study)}


def arm_dashes(study: Study) -> dict[str, str | None]:
    """A dash for each arm's curves; None is a whole line."""
    return {
        name: "longdashdot" if of == "null control" else _DASHES[at % len(_DASHES)] for name, of, at in _places(study)
    }


def arm_symbols(study: Study) -> dict[str, str]:
    """A symbol for each arm's points: diamonds of some kind sample the untrained base."""
    untrained = {name for name, config in study.configs.items() if not is_trained(config)}
    kinds = {name: _HOLLOW if name in untrained else _SYMBOLS for name in study.configs}
    return {name: kinds[name][at % len(kinds[name])] for name, _, at in _places(study)}


def _places(study: Study) -> list[tuple[str, Family, int]]:
    """Each arm, its family, and its number within that."""
    seen: dict[Family, int] = {}
    places = []
    for name, config in study.configs.items():
        of = family(config)
        places.append((name, of, seen.setdefault(of, 0)))
        seen[of] += 1
    return places
