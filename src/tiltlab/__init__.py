"""What a notebook needs, under one name: `from tiltlab import Evidence, decide, load_model`.

Each name is fetched when it is first asked for. Torch comes with what loads, trains or draws; objectives, tasks,
records, `make_forecast` and `decide` do without.

`make_forecast` and `decide` are not called forecast and verdict, since those are packages in here: importing one of
them would put it in the function's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiltlab.config.tasks import load_task as load_task
    from tiltlab.evaluation.evaluate import evaluate as evaluate
    from tiltlab.forecast.forecast import make_forecast as make_forecast
    from tiltlab.models.loading import load_model as load_model
    from tiltlab.objective import Objective as Objective
    from tiltlab.objective import sharpening as sharpening
    from tiltlab.objective import task_reward as task_reward
    from tiltlab.objective import tempered as tempered
    from tiltlab.objective import tilted as tilted
    from tiltlab.samplers.temperature import Temperature as Temperature
    from tiltlab.storage.records import read_records as read_records
    from tiltlab.training.optimizer import Optimizer as Optimizer
    from tiltlab.training.optimizer import OptimizerConfig as OptimizerConfig
    from tiltlab.training.train import TrainConfig as TrainConfig
    from tiltlab.training.train import train as train
    from tiltlab.verdict.verdict import Evidence as Evidence
    from tiltlab.verdict.verdict import decide as decide

    __version__: str

_HOMES = {
    "Evidence": "tiltlab.verdict.verdict",
    "Objective": "tiltlab.objective",
    "Optimizer": "tiltlab.training.optimizer",
    "OptimizerConfig": "tiltlab.training.optimizer",
    "Temperature": "tiltlab.samplers.temperature",
    "TrainConfig": "tiltlab.training.train",
    "evaluate": "tiltlab.evaluation.evaluate",
    "decide": "tiltlab.verdict.verdict",
    "load_model": "tiltlab.models.loading",
    "load_task": "tiltlab.config.tasks",
    "make_forecast": "tiltlab.forecast.forecast",
    "read_records": "tiltlab.storage.records",
    "sharpening": "tiltlab.objective",
    "task_reward": "tiltlab.objective",
    "tempered": "tiltlab.objective",
    "tilted": "tiltlab.objective",
    "train": "tiltlab.training.train",
}

__all__ = [*_HOMES, "__version__"]

if not TYPE_CHECKING:  # a type checker is to know the names above and no others

    def __getattr__(name):
        if name == "__version__":
            from importlib.metadata import version

            return version("tiltlab")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__():
        return sorted({*globals(), *__all__})
