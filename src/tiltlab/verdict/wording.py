"""The words of a verdict: what was compared, how far it was followed, and what a gain is made of. Pure.

Left out on purpose: rules. What is said here has been decided (outcome.py).
"""

from tiltlab.stats.metrics import Interval
from tiltlab.verdict.followed import Followed
from tiltlab.verdict.parts import Parts
from tiltlab.verdict.sharpened import Best, By, Sharpened
from tiltlab.verdict.solved_problems import Profile

MORE_SAMPLES = "more samples a problem, or both models, so that samples of the tuned one can be weighed too"

UNSCORED = "how likely the base finds these responses is not known, so sharpening by likelihood cannot be followed"

SCORES = "the base's log p of both models' responses (`tiltlab score`)"

UNREAD = "nobody read answers, so what voting would have is not known"

ANSWERS = "answers that can be voted on: name the task that reads them"

NOTHING = 0.005
"""Of accuracy: a part that two decimals do not show."""


def percent(share: Interval) -> str:
    return f"{100 * share.value:z.0f} % [{100 * share.low:z.0f}, {100 * share.high:z.0f}]"


def signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def by_form(parts: Parts) -> str:
    return (
        f"{parts.base_form:.0%} of the base's responses end with an answer that is read, {parts.tuned_form:.0%} of the "
        f"tuned model's, which is {percent(parts.form)} of the gain"
    )


def by_sharpening(reached: float, best: Best, parts: Parts | None) -> str:
    """What sharpening comes to. A share is given where it is one: sharpening may reach more than training did."""
    alike = parts is not None and abs(parts.ends.value + parts.read.value) >= NOTHING
    if best.is_none and not alike:
        return "no sharpening tried beats the base"
    how = f"sharpening alone ({best.named})"
    if alike:
        how = "as well formed as the tuned model's, the base's responses"
        how += "" if best.is_none else f", sharpened ({best.named}),"
    by = f"{how} {'reach' if alike else 'reaches'} {best.accuracy.value:.3f}, training reached {reached:.3f}"
    return f"{by} ({percent(best.recovered)} of the gain)" if 0 <= best.recovered.value <= 1 else by


def beyond(sharpened: Sharpened) -> str:
    """Beyond no sharpening lies the whole gain, which is told already."""
    said = "" if sharpened.is_none else f" Beyond sharpening: {signed(sharpened.rest)}."
    followed = sharpened.likelihood.followed if sharpened.likelihood else None
    if followed and followed.matched:
        said += f" Of base responses as likely as the tuned model's, {followed.matched.value:.3f} are right."
    return said


def of_which(by: By, likelihood: Best | None, answers: Best | None) -> str:
    """Which sharpening it is."""
    said = []
    if by in ("likelihood", "both") and likelihood:
        said.append(f"of its likelihood ({_would_have(likelihood.named, likelihood.accuracy)})")
    if by in ("answers", "both") and answers:
        said.append(f"of its answers ({_would_have(answers.named, answers.accuracy)})")
    return f"It is a sharpening {' and '.join(said)}"


def _would_have(name: str, accuracy: Interval) -> str:
    return f"{name} would have had {accuracy.value:.2f}"


def how_far(sharpened: Sharpened) -> list[str]:
    """Where the tuned model went further than the base could be followed."""
    said = []
    for of, what in ((sharpened.likelihood, _in_likelihood), (sharpened.answers, _in_answers)):
        if of and of.followed and not of.far_enough:
            said.append(what(of.followed))
    return said


def _in_likelihood(followed: Followed) -> str:
    said = f"the tuned model's responses are likelier than {followed.at}"
    return f"{said} (log p {followed.tuned:.1f} in the mean, {followed.end:.1f} there)"


def _in_answers(followed: Followed) -> str:
    said = f"its answers agree more than those of {followed.at}"
    return f"{said} (two of them with a chance of {followed.tuned:.2f}, {followed.end:.2f} there)"


def more_samples(sharpened: Sharpened) -> str:
    needed = sharpened.likelihood.followed.needed if sharpened.likelihood and sharpened.likelihood.followed else None
    return f"at a guess {needed} samples a problem; {MORE_SAMPLES}" if needed else MORE_SAMPLES


def what_fell(base: Profile, tuned: Profile) -> str:
    fell = [text for name, text in _FELL.items() if getattr(tuned, name) < 0.5 * getattr(base, name)]
    if tuned.truncated > base.truncated + 0.25:
        fell.append(f"{tuned.truncated:.0%} of its responses are truncated, {base.truncated:.0%} of the base's are")
    return f"; {', '.join(fell)}" if fell else ""


_FELL = {
    "length": "its responses are less than half as long",
    "distinct": "it gives less than half as many different answers",
    "entropy": "its answers have less than half the entropy",
}


def in_parts(parts: Parts, sharpened: Sharpened | None, base: Profile) -> str:
    """What a gain is made of, in one sentence; parts that two decimals do not show are left out."""
    told = [
        (parts.ends.value, _ending(parts, base)),
        (parts.read.value, "is answering where it is read"),
        (parts.sharpened.value, f"{_sharpening(sharpened)} would have had"),
        (parts.taught.value, _rest(parts, sharpened)),
    ]
    gain = parts.ends.value + parts.read.value + parts.sharpened.value + parts.taught.value
    shown = [f"{value:.2f} {words}" for value, words in told if abs(value) >= NOTHING]
    return f"Of {gain:+.2f}, {', '.join(shown) or 'no part can be told'}."


def _ending(parts: Parts, base: Profile) -> str:
    missing = 1 - parts.base_form
    if base.truncated >= 0.9 * missing:
        return "is coming to an end"
    if base.truncated <= 0.1 * missing:
        return "is giving an answer" if parts.read_known else "is giving an answer where it is read"
    return "is ending with an answer" if parts.read_known else "is ending with an answer that is read"


def _sharpening(sharpened: Sharpened | None) -> str:
    return (
        "voting"
        if sharpened and sharpened.answers and set(sharpened.chosen) <= set(sharpened.answers.chosen)
        else "sharpening"
    )


def _rest(parts: Parts, sharpened: Sharpened | None) -> str:
    if sharpened is None:
        return "was taught or sharpened"
    if parts.taught.low <= 0 <= parts.taught.high:
        return "is left, which may be nothing"
    if parts.taught.value < 0:
        return "was lost"
    return "was taught" if sharpened.covers else "was taught, or sharpened further than the samples carry"
