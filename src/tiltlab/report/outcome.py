"""A verdict's outcome, how far sharpening was followed, and what more samples add, in words."""

from tiltlab.report.text import UNKNOWN, interval, number, signed
from tiltlab.verdict.pass_curves import Crossing
from tiltlab.verdict.sharpened import OfFamily
from tiltlab.verdict.verdict import Verdict

_FORMS = ("log p {:.1f}", "two agree: {:.2f}")
"""How far likelihood, and answers, went."""

_BY = {"likelihood": "of its likelihood", "answers": "of its answers", "both": "of its likelihood or its answers"}


def by_which(verdict: Verdict) -> str:
    """Of what a sharpening is that explains the gain; empty where none does."""
    return _BY[verdict.by] if verdict.by else ""


def called(verdict: Verdict) -> str:
    """The outcome; of sharpening, of what."""
    return ", ".join(filter(None, (verdict.outcome, by_which(verdict))))


def followed_rows(verdict: Verdict) -> list[tuple[str, str, str]]:
    """What is compared, and what it is by likelihood and by answers; empty where nothing is known of sharpening."""
    if verdict.sharpened is None:
        return []
    both = (verdict.sharpened.likelihood, verdict.sharpened.answers)
    names = [
        "the best of it",
        "its accuracy",
        "the tuned model beyond it",
        "followed to",
        "the tuned model went to",
        "far enough",
    ]
    told = [_figures(of, form) for of, form in zip(both, _FORMS, strict=True)]
    rows = list(zip(names, *told, strict=True))
    return [row for row in rows if {*row[1:]} != {UNKNOWN}]


def _figures(of: OfFamily | None, form: str) -> list[str]:
    if of is None:
        return [UNKNOWN] * 6
    far = ["nobody knows"] * 3
    if of.followed:
        enough = "yes" if of.far_enough else "no"
        if not of.far_enough and of.followed.needed:
            enough += f": it would take {of.followed.needed} samples a problem, at a guess"
        far = [f"{form.format(of.followed.end)}, {of.followed.at}", form.format(of.followed.tuned), enough]
    if of.out_of_reach and of.limit:
        far[2] = f"yes: it cannot exceed {number(of.limit.value, 2)}"
    return [of.named, interval(of.accuracy), signed(of.rest), *far]


def tax_in_words(verdict: Verdict) -> str | None:
    """The sharpening tax of both models, and where their pass@k cross; None where nobody knows."""
    curves = verdict.pass_curves
    if curves is None:
        return None
    base, tuned = curves.base_tax, curves.tuned_tax
    said = f"Sharpening tax, from {curves.most} samples: base {interval(base, 2)}, tuned {interval(tuned, 2)}. "
    if base.value == base.value and tuned.value == tuned.value:
        said += (
            f"In the mean over k, going from k to {curves.most} samples still wins {base.value:.0%} of what one sample "
        )
        said += f"misses with the base, {tuned.value:.0%} with the tuned model. "
    return said + _crossing(curves.crossing, curves.most)


def _crossing(crossing: Crossing, most: int) -> str:
    if crossing.k is None:
        early = "" if crossing.low is None else f"; at the earliest, at k = {crossing.low:.3g}"
        return f"Up to k = {most} the base’s pass@k does not overtake the tuned model’s{early}."
    if crossing.k == 1 and crossing.high == 1:
        return "The base’s pass@k is the larger from k = 1 on."
    ends = [f"beyond {most}" if end is None else f"{end:.3g}" for end in (crossing.low, crossing.high)]
    return f"The base’s pass@k overtakes at k = {crossing.k:.3g} [{', '.join(ends)}]."
