"""What a recipe can name: arms, samplers and tasks, each with its keys and a sentence on what it is."""

import re
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, Literal, get_args, get_type_hints

from tiltlab.config.methods import Sampled, Taught, named
from tiltlab.tasks.addition import Addition
from tiltlab.tasks.dataset import Data
from tiltlab.tasks.reasoning_gym import ReasoningGym
from tiltlab.tasks.sums import Sums

What = Literal["arms", "samplers", "tasks"]

NEEDED = "(needed)"


@dataclass(frozen=True)
class Offered:
    """One arm, sampler or task that a recipe can name.

    name: as recipes write it.
    says: what it is, in one sentence.
    keys: with what each is where it is left out; `NEEDED` where it cannot be.
    """

    name: str
    says: str
    keys: dict[str, Any]


def offered(what: What) -> list[Offered]:
    """All arms, samplers (arms that do not train) or tasks."""
    match what:
        case "samplers":
            return _arms(Sampled)
        case "arms":
            return _arms(Sampled) + _arms(Taught)
    return [entry for task in (Sums, Addition, Data, ReasoningGym) for entry in _tasks(task)]


def _arms(kind: UnionType) -> list[Offered]:
    return [
        Offered(
            name,
            _sentence(arm),
            {
                key: NEEDED if field.is_required() else field.default
                for key, field in arm.model_fields.items()
                if key != "arm"
            },
        )
        for name, arm in named(kind).items()
    ]


def _tasks(task: type[Any]) -> list[Offered]:
    keys: dict[str, Any] = {}
    for field in fields(task):
        if field.name != "task":
            made = field.default_factory() if field.default_factory is not MISSING else field.default
            keys[field.name] = NEEDED if made is MISSING else made
    return [Offered(name, _sentence(task), keys) for name in _names(get_type_hints(task)["task"])]


def _names(tags: Any) -> list[str]:
    """The strings of a Literal, or of a union of them."""
    return [name for tag in get_args(tags) for name in ([tag] if isinstance(tag, str) else _names(tag))]


def _sentence(kind: type[Any]) -> str:
    """The first of its docstring."""
    text = " ".join((kind.__doc__ or "").split())
    sentence = re.match(r".*?\.(?=\s|$)", text)
    return sentence[0] if sentence else text
