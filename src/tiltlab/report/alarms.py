"""The alarms of a study's runs, from their metrics: what fired, in which arm and seed, and on which curve it shows."""

from dataclasses import dataclass

from tiltlab.report.load import Failure, Seeded, Study
from tiltlab.training.alarms import Alarm, Kind, alarms

ON_CURVE: dict[Kind, str] = {
    "length collapse": "length",
    "length explosion": "length",
    "repeated text": "length",
    "entropy collapse": "entropy",
    "KL run-away": "kl",
    "likelihood without accuracy": "ref_logp",
    "no signal": "reward",
    "reward-scale imbalance": "reward",
    "best above last": "accuracy",
    "sampler mismatch": "mismatch_mean",
    "few effective responses": "ess",
}


_Run = tuple[str, int, Seeded | Failure]


@dataclass(frozen=True)
class FiredAlarm:
    """An alarm of a study's run.

    task, arm: by name.
    seed: of the run.
    alarm: what fired, and at which step.
    """

    task: str
    arm: str
    seed: int
    alarm: Alarm

    def __str__(self) -> str:
        return f"{self.task} / {self.arm} / seed {self.seed}: {self.alarm}"


def fired_alarms(study: Study, task: str) -> list[FiredAlarm]:
    """All alarms of a task, arm by arm and seed by seed, those of failed jobs at the end."""
    runs: list[_Run] = [
        (arm.name, seeded.seed, seeded) for arm in study.on(task) if arm.trained for seeded in arm.seeds
    ]
    failed: list[_Run] = [(job.arm, job.seed, job) for job in study.failed if job.task == task]
    return [
        FiredAlarm(task, arm, seed, alarm)
        for arm, seed, lines in (*runs, *failed)
        for alarm in alarms(lines.metrics, lines.validation)
    ]
