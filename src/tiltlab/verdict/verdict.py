"""What a gain is made of: did the tuned model learn something, or is it the base, better formed or sharpened? From
records alone. Pure.

The questions put to the data: how much of the gain would the base have had by ending and answering as often as the
tuned model does (form.py); how much more by the best sharpening of its responses or of its answers, chosen on one half
of the problems and scored on the other (candidates.py, held_out.py); and was it followed as far as the tuned model went
(followed.py)? outcome.py decides.

Left out on purpose: anything that needs a model. Whoever has both models can score the base's responses under the tuned
one (`cross_logp`): samples of both then stand in for p^alpha, and carry further along the path.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

import numpy as np

from tiltlab.forecast.weighted_samples import WeightedSamples, from_records
from tiltlab.stats.paired import Comparison, compare
from tiltlab.types import Record
from tiltlab.verdict import candidates, followed
from tiltlab.verdict.base_path import BasePath
from tiltlab.verdict.base_path import base_path as base_path
from tiltlab.verdict.form import form_table, others_unused
from tiltlab.verdict.held_out import resamples
from tiltlab.verdict.outcome import OUTCOMES as OUTCOMES
from tiltlab.verdict.outcome import Known, decided
from tiltlab.verdict.outcome import Outcome as Outcome
from tiltlab.verdict.parts import Parts, parts
from tiltlab.verdict.pass_curves import PassCurves, pass_curves
from tiltlab.verdict.sharpened import By, Sharpened, best, of_family
from tiltlab.verdict.solved_problems import Profile, SolvedProblems, profile, solved_problems
from tiltlab.verdict.wording import in_parts

MARGIN = 0.05
"""Of accuracy: a gain smaller than this, either way, is none worth the name."""


@dataclass(frozen=True)
class Verdict:
    """The outcome, why, and what it rests on.

    needs: what would decide it, where nothing is decided. by: which sharpening explains the gain, where one does.
    parts: the gain in its parts, whatever the outcome; None for a single problem.
    made_of: the parts of a gain in a sentence.
    pass_curves: what more samples add; None for a single problem or sample.
    """

    outcome: Outcome
    why: str
    needs: str | None
    gain: Comparison
    sharpened: Sharpened | None
    solved_problems: SolvedProblems
    base: Profile
    tuned: Profile
    by: By | None = None
    parts: Parts | None = None
    made_of: str | None = None
    pass_curves: PassCurves | None = None


@dataclass(frozen=True)
class Evidence:
    """What a verdict is about: responses of two models to the same problems.

    base, tuned: samples of either model at temperature 1, with the base's log p in `ref_logp`; tuned ones with the
        tuned model's in `logp`. In nats a response, as all log-probabilities here.
    cross_logp: of each base response under the tuned model, in the order of `base`; None where nobody scored it.
    rivals: by name, samples drawn from the base by a sampler that knows nothing but its likelihood, with the base's
        log p in `ref_logp`.
    powers: likewise, of samplers that target a p^alpha: only these tell how likely responses get along that path.
    voted: likewise, of samplers that look at nothing but the base's answers, as a majority does.
    path: what samples of the base tell of its sharpening, where somebody knows already: told once, it serves any
        number of tuned models, and samples beyond those in `base` may have gone into it, which then count in nothing
        else (of problems solved, both models are to have the same chances). None: it is told from `base`, and with a
        cross_logp from `tuned` too.
    unread: whether nobody read the answers of one of the two, so that what voting would have is not known.
    lenient: `base` and `tuned` again, record by record, graded leniently: where a response says its answer anywhere.
        None where nobody did.

    Raises ValueError for a path beside a cross_logp, since it was told without the tuned model's samples, or beside
    lenient grades; and for lenient grades of other records.
    """

    base: Sequence[Record]
    tuned: Sequence[Record]
    cross_logp: Sequence[float] | None = None
    rivals: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    powers: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    path: BasePath | None = None
    voted: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    lenient: tuple[Sequence[Record], Sequence[Record]] | None = None
    unread: bool = False

    def __post_init__(self) -> None:
        if self.path is not None and self.cross_logp is not None:
            raise ValueError("a path of further samples of the base lacks the tuned model's log-probabilities")
        if self.path is not None and self.lenient is not None:
            raise ValueError("a path of further samples of the base lacks their lenient grades")
        if self.lenient and [_which(records) for records in self.lenient] != [_which(self.base), _which(self.tuned)]:
            raise ValueError("lenient grades are to be of the same records, in the same order")


def _which(records: Sequence[Record]) -> list[tuple[str, str, int]]:
    return [(record.task, record.problem, record.sample) for record in records]


def decide(evidence: Evidence, margin: float = MARGIN, seed: int = 0) -> Verdict:
    """The verdict. margin: of accuracy, what is no gain worth the name. seed: of the resampling of problems.

    Raises ValueError where the two models have no graded problem in common.
    """
    base, tuned = evidence.base, evidence.tuned
    gain = compare(base, tuned, seed)
    sharpened, made_of = _made_of(evidence, seed)
    scored = all(any(not isnan(record.ref_logp) for record in of) for of in (base, tuned))
    known = Known(gain, sharpened, made_of, profile(base), profile(tuned), scored, evidence.unread)
    decision = decided(known, margin)
    return Verdict(
        outcome=decision.outcome,
        why=decision.why,
        needs=decision.needs,
        gain=gain,
        sharpened=sharpened,
        solved_problems=solved_problems(base, tuned),
        base=known.base,
        tuned=known.tuned,
        by=decision.by,
        parts=made_of,
        made_of=in_parts(made_of, sharpened, known.base) if made_of and gain.difference.low > 0 else None,
        pass_curves=pass_curves(base, tuned, seed),
    )


def _made_of(evidence: Evidence, seed: int) -> tuple[Sharpened | None, Parts | None]:
    """What sharpening has, where there is any to try, and the parts of the gain; neither for a single problem."""
    table = form_table(evidence.base, evidence.tuned, evidence.lenient)
    if len(table.problems) < 2:
        return None, None
    drawn = resamples(len(table.problems), seed)
    base, tuned = evidence.lenient or (evidence.base, evidence.tuned)
    path = evidence.path or base_path(base, _mixture(evidence, base, tuned))
    by_likelihood = {**evidence.rivals, **evidence.powers}
    known = candidates.candidates(path, table.problems, table.lenient.with_form.mean_P, by_likelihood, evidence.voted)
    of, gain = best(table, known, drawn)
    made_of = parts(table, gain, drawn, sharpened_known=len(known) > 1)
    if len(known) == 1:
        return None, made_of
    match = followed.as_likely(path, tuned)
    likelihood = of_family(
        table,
        known,
        "likelihood",
        followed.in_likelihood(path, tuned, evidence.powers, match),
        drawn,
        alike=candidates.as_likely(path, table.problems, match),
    )
    answers = of_family(
        table,
        known,
        "answers",
        followed.in_answers(path, tuned, evidence.voted),
        drawn,
        limit=candidates.vote_limit(path, table.problems),
    )
    covers = likelihood is not None and likelihood.far_enough
    covers &= (path.without_answers and not evidence.unread) or (answers is not None and answers.far_enough)
    of_both = Sharpened(**vars(of), reach=path.reach, covers=covers, likelihood=likelihood, answers=answers)
    return of_both, made_of


def _mixture(evidence: Evidence, base: Sequence[Record], tuned: Sequence[Record]) -> WeightedSamples | None:
    """With a cross_logp, samples of both models, as of their mixture."""
    if evidence.cross_logp is None:
        return None
    log_q_KN = np.array([[r.ref_logp for r in (*base, *tuned)], [*evidence.cross_logp, *(r.logp for r in tuned)]])
    return from_records(others_unused([*base, *tuned]), log_q_KN, np.repeat([0, 1], [len(base), len(tuned)]))
