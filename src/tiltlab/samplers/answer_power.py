"""The base with its more frequent answers made more frequent: sharpening that needs neither labels nor likelihoods.

Left out on purpose: a g that is not whole. Its exact reading, g responses that agree, has no half responses.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tiltlab.models.base import LanguageModel
from tiltlab.samplers.base import GradeFn, Info, Samples, drawn_tokens, stopwatch
from tiltlab.seeds import derive
from tiltlab.types import Prompt, Rollout


@dataclass(frozen=True)
class AnswerPower:
    """Targets, exactly, p(y) P(a(y))^(g - 1) / Z over complete responses with an answer: a(y) is the answer as graded,
    P(a) its mass. By rejection: the first of g independent responses, where all g give the same answer.

    g = 1 is the base itself, whatever it says; as g grows, it is the most frequent answer in the base's own wordings.
    From g = 2 on, responses that are truncated or have no answer are passed over: they cast no vote.

    g: a whole number of at least 1.
    budget: responses drawn from the base, at most, for each one that is wanted; at least g. A prompt on which that is
        not enough is given up: what is missing is picked from the answered responses that were drawn, each with weight
        (count of its answer)^(g - 1), which comes near the target and is not it. `Info` warns, and tells how many.
    """

    g: int = 4
    budget: int = 64

    def __post_init__(self) -> None:
        if self.g != int(self.g) or self.g < 1:
            raise ValueError(f"answer power's g must be a whole number of at least 1, got {self.g}")
        if self.budget < self.g:
            raise ValueError(
                f"answer power's budget must be at least g = {self.g}, the draws that one response takes, "
                f"got {self.budget}"
            )

    def drawn(self, n: int) -> int:
        return n * self.budget

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_tokens: int,
        seed: int,
        grade_fn: GradeFn | None = None,
    ) -> Samples:
        if grade_fn is None:
            raise ValueError("answer power needs a grade_fn, to read answers")
        searches = [_Search(self.g, n) for _ in prompts]
        with stopwatch() as seconds:
            left, tokens = n * self.budget, 0
            while left and (going := [p for p, search in enumerate(searches) if len(search.agreed) < n]):
                size = min(n * self.g, left)
                drawn = model.generate(
                    [prompts[p] for p in going], n=size, max_tokens=max_tokens, seed=derive(seed, "answers", left)
                )
                _look_through(grade_fn, searches, going, drawn)
                tokens, left = tokens + drawn_tokens(drawn), left - size
            rollouts = [
                search.responses(derive(seed, "gave up", repr(prompt)))
                for search, prompt in zip(searches, prompts, strict=True)
            ]
            return Samples(rollouts, self._info(searches, n, tokens, seconds()))

    def _info(self, searches: Sequence["_Search"], n: int, tokens: int, seconds: float) -> Info:
        """notes, by prompt: the share of groups that agreed, that of responses with an answer, responses drawn, and how
        many of the n, the last ones, had to be picked otherwise."""
        gave_up = [n - min(n, len(search.agreed)) for search in searches]
        notes = {
            "acceptance": [len(search.agreed) / max(1, search.groups) for search in searches],
            "answered": [len(search.answered) / max(1, search.drawn) for search in searches],
            "responses_drawn": [search.drawn for search in searches],
            "gave_up": gave_up,
        }
        warnings = []
        if any(gave_up):
            warnings.append(
                f"AnswerPower gave up on some prompts: too few groups of {self.g} agreed within {self.budget} draws a "
                "response; the rest (notes.gave_up) is picked by how often each answer was seen; raise budget"
            )
        if any(missing and not search.answered for missing, search in zip(gave_up, searches, strict=True)):
            warnings.append(
                "AnswerPower: no complete response to some prompts has an answer; theirs are plain draws without one"
            )
        return Info(tokens, seconds=seconds, notes=notes, warnings=tuple(warnings))


@dataclass
class _Search:
    """The responses to one prompt, as they come in: groups of g, one after the other, none twice.

    A group is over at the first response that disagrees, which leaves with it. It may not begin the next group: a
    response that is known to differ from another is no fresh draw.

    agreed: the first response of each group whose g answers are the same. groups: that were decided.
    """

    g: int
    n: int
    agreed: list[Rollout] = field(default_factory=list)
    groups: int = 0
    drawn: int = 0
    answered: list[tuple[str, Rollout]] = field(default_factory=list)
    _first: list[Rollout] = field(default_factory=list)
    _group: list[tuple[str, Rollout]] = field(default_factory=list)

    def add(self, rollout: Rollout, answer: str | None) -> None:
        self.drawn += 1
        if len(self._first) < self.n:
            self._first.append(rollout)
        if self.g == 1:
            self.agreed.append(rollout)
            self.groups += 1
        if answer is None:
            return
        self.answered.append((answer, rollout))
        if self.g > 1:
            self._compare(rollout, answer)

    def _compare(self, rollout: Rollout, answer: str) -> None:
        self._group.append((answer, rollout))
        first, response = self._group[0]
        agree = answer == first
        if agree and len(self._group) == self.g:
            self.agreed.append(response)
        if not agree or len(self._group) == self.g:
            self.groups += 1
            self._group = []

    def responses(self, seed: int) -> list[Rollout]:
        """n of them: those that agreed first; what is missing by the counts of answers, or where there are none, as
        drawn."""
        chosen = self.agreed[: self.n]
        missing = self.n - len(chosen)
        if not missing:
            return chosen
        if not self.answered:
            return self._first
        counts = Counter(answer for answer, _ in self.answered)
        most = max(counts.values())
        weights = np.array([(counts[answer] / most) ** (self.g - 1) for answer, _ in self.answered])
        picked = np.random.default_rng(seed).choice(len(weights), size=missing, p=weights / weights.sum())
        return chosen + [self.answered[i][1] for i in picked]


def _look_through(
    grade_fn: GradeFn, searches: Sequence[_Search], going: Sequence[int], drawn: Sequence[Sequence[Rollout]]
) -> None:
    """Hand the responses to these prompts to their searches, with their answers; one that is truncated has none."""
    rows = [(p, rollout) for p, group in zip(going, drawn, strict=True) for rollout in group]
    whole = [(p, rollout) for p, rollout in rows if rollout.complete]
    grades = iter(grade_fn([p for p, _ in whole], [rollout for _, rollout in whole]))
    for p, rollout in rows:
        searches[p].add(rollout, next(grades).answer if rollout.complete else None)
