"""A study's metrics in somebody else's dashboard: trackio, wandb or tensorboard.

metrics.jsonl and select.jsonl stay the truth; a mirror reads what they have new and passes it on, from the process that
watches the workers. Left out on purpose: everything else that trackers can hold. Records and pages are files.
"""

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from tiltlab.errors import UserError, brief
from tiltlab.storage.files import Json, read_json, read_lines, slug, write_json
from tiltlab.storage.run_folder import JobDir

Kind = Literal["trackio", "wandb", "tensorboard"]

EVERY = 5.0
"""Seconds between two looks at a job's files."""


class Run(Protocol):
    """One run of a tracker."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Pass on figures, by name, as they were after so many steps."""
        ...

    def finish(self) -> None:
        """Close the run."""
        ...


class Mirror:
    """Passes on what is new in the jobs of a study: one tracker's run a job, each line once, also over restarts.

    kind: "trackio", "wandb" or "tensorboard".
    folder: of the study; what was passed on is noted there.
    project: what the tracker calls the study.
    config: the recipe, as plain values.
    warn: told, once, where the tracker fails.

    Raises UserError for a tracker that is not one of these, or not installed.

    A tracker that fails (a network that is down, say) is left alone from then on: no training ends for a dashboard.
    """

    def __init__(self, kind: str, folder: Path, project: str, config: Json, warn: Callable[[str], None]) -> None:
        self._open = _opener(kind, folder, project, config)
        self._kind, self._warn = kind, warn
        self._state = folder / f"tracked-{kind}.json"
        self._seen: dict[str, list[int]] = read_json(self._state) if self._state.exists() else {}
        self._runs: dict[str, Run] = {}
        self._looked: dict[str, float] = {}
        self._broken = False

    def look(self, key: str, job: JobDir, ended: bool) -> None:
        """Pass on what a job's files have new, every few seconds at most.

        key: names the job's run.
        ended: whether the job is done, so that its run is closed.
        """
        now = time.monotonic()
        if self._broken or not (ended or now - self._looked.get(key, -EVERY) >= EVERY):
            return
        self._looked[key] = now
        try:
            self._pass_on(key, job)
            if ended and key in self._runs:
                self._runs.pop(key).finish()
        except Exception as error:
            self._broken = True
            self._warn(f"{self._kind} failed and is left alone; metrics.jsonl has all ({brief(error)})")

    def _pass_on(self, key: str, job: JobDir) -> None:
        seen = self._seen.setdefault(key, [-1, -1])
        for i, (group, path) in enumerate((("train", job.metrics), ("validation", job.validation))):
            for line in (line for line in read_lines(path) if line["step"] > seen[i]):
                if key not in self._runs:
                    self._runs[key] = self._open(key)
                self._runs[key].log(flat(line, group), line["step"] + (group == "train"))
                seen[i] = line["step"]
        write_json(self._state, self._seen)


def flat(line: Mapping[str, Any], group: str) -> dict[str, float]:
    """The finite numbers of a line by name: train/reward, train/seconds/rollout, ...

    group: what stands before each name.
    """
    values: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{group}/{key}")
        elif isinstance(value, int | float) and isfinite(value) and key != "step":
            values[f"{group}/{key}"] = float(value)
    return values


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


def _opener(kind: str, folder: Path, project: str, config: Json) -> Callable[[str], Run]:
    """Raises UserError for a tracker that nobody knows, or that is not installed."""
    if kind not in get_args(Kind):
        raise UserError(f"--track {kind}: it is one of {', '.join(get_args(Kind))}")
    try:
        tracker = import_module("torch.utils.tensorboard" if kind == "tensorboard" else kind)
    except ImportError as error:
        raise UserError(f"--track {kind}: it is not installed; `pip install {kind}`") from error
    if kind == "tensorboard":
        return lambda key: _TensorBoard(tracker.SummaryWriter(str(folder / "tensorboard" / _folders(key))))
    if kind == "wandb":
        return lambda key: _opened(tracker.init(project=project, name=key, config=config, reinit="create_new"))
    return lambda key: _opened(tracker.init(project=project, name=key, config=config, resume="allow"))


def _folders(key: str) -> str:
    """A job's task, arm and seed as folders in each other."""
    *names, seed = key.rsplit(" / ", 2)
    return "/".join([*map(slug, names), seed])


def _opened(run: Any) -> Run:
    opened: Run = run
    return opened
