"""What the records of a study say beyond their means: the forecast from the base's samples, and a verdict on every
trained arm."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tiltlab.errors import UserError
from tiltlab.forecast.forecast import Forecast, base_forecast
from tiltlab.forecast.frontier import least_kl
from tiltlab.report.load import ArmOnTask, Study
from tiltlab.report.tables import Row
from tiltlab.storage.natures import Nature, nature_of
from tiltlab.types import Record
from tiltlab.verdict.verdict import OUTCOMES, Evidence, Verdict, base_path, decide

_SHARPENED: tuple[set[Nature], set[Nature]] = ({"plain", "likelihood", "answers"}, {"power"})
"""The base sampled without a look at the reward: at will, and by samplers of a p^alpha."""


@dataclass(frozen=True)
class Findings:
    """What the records of one task say beyond their means.

    forecast: None where the base's samples support none.
    verdicts: by trained arm.
    """

    forecast: Forecast | None
    verdicts: dict[str, Verdict]

    def least_kl(self, row: Row) -> float | None:
        """KL that the best distribution with a row's accuracy takes, by the forecast; None where nobody knows."""
        return least_kl(self.forecast, row.accuracy.value) if self.forecast else None

    @property
    def in_words(self) -> str:
        """The arms by what became of them, the best news first."""
        by_outcome = {outcome: [n for n, v in self.verdicts.items() if v.outcome == outcome] for outcome in OUTCOMES}
        return "; ".join(f"{', '.join(names)}: {outcome}" for outcome, names in by_outcome.items() if names) + "."


def findings(study: Study, task: str) -> Findings:
    """The findings of one task, over all seeds of a study; empty ones without an untouched base."""
    base = study.base(task)
    if base is None:
        return Findings(None, {})
    records, more = _records(base), [record for seeded in base.seeds for record in seeded.more]
    trained = [arm for arm in study.on(task) if arm.trained]
    path = base_path([*records, *more]) if trained else None
    untrained = [arm for arm in study.on(task) if not arm.trained]
    voted = {arm.name: _records(arm) for arm in untrained if nature_of(arm.config) == "answers"}
    rivals, powers = (
        {arm.name: _records(arm) for arm in untrained if arm.nature in of and arm.name not in voted}
        for of in _SHARPENED
    )
    verdicts = {}
    for arm in trained:
        with suppress(ValueError):  # no problem of which both have a graded response
            verdicts[arm.name] = decide(
                Evidence(records, _records(arm), path=path, rivals=rivals, powers=powers, voted=voted)
            )
    return Findings(_forecast([*records, *more]), verdicts)


def _forecast(records: Sequence[Record]) -> Forecast | None:
    try:
        return base_forecast(records)
    except UserError:  # too few samples, or none that is complete
        return None


def _records(arm: ArmOnTask) -> list[Record]:
    return [record for seeded in arm.seeds for record in seeded.last]
