"""Which tasks there are, and how a recipe or `--task` names one. Imports no torch."""

from typing import Annotated

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from tiltlab.config.complaints import complaints
from tiltlab.config.reading import yaml_value
from tiltlab.errors import UserError
from tiltlab.storage.old_names import renamed
from tiltlab.tasks.addition import Addition
from tiltlab.tasks.dataset import Data, from_options
from tiltlab.tasks.reasoning_gym import ReasoningGym
from tiltlab.tasks.sums import Sums


def tagged(tag: str) -> BeforeValidator:
    """Lets a bare name stand for {tag: name}: `- base` for `- {arm: base}`."""
    return BeforeValidator(lambda value: {tag: value} if isinstance(value, str) else value)


Task = Annotated[Annotated[Sums | Addition | Data | ReasoningGym, Field(discriminator="task")], tagged("task")]


def load_task(task: str | None, data: str | None = None, columns: str | None = None) -> Task:
    """The task that `--task NAME --data FILE --map problem=question,answer=final` name.

    task: its name, or a recipe's whole entry, "{task: reasoning_gym, family: chain_sum}".
    data: a file with the problems of its test split.
    columns: which of the file's columns hold what.

    Raises UserError with one line for each thing that is wrong.
    """
    named = yaml_value(task, "--task") if task else None
    entry = renamed({"task": named})["task"] if isinstance(named, dict) else from_options(task, None, None)
    entry |= {key: value for key, value in from_options(None, data, columns).items() if key != "task"}
    try:
        return TypeAdapter(Task).validate_python(entry)
    except ValidationError as error:
        raise UserError(*(f"--task {task or 'data'}: {wrong}" for wrong in complaints(error, entry))) from error
