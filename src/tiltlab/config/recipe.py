"""A study's recipe: one YAML file, checked as a whole before any compute is used.

Left out on purpose: inheritance between recipes and interpolation. A recipe can be read on its own.
"""

import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from tiltlab.config.arm import Count
from tiltlab.config.complaints import complaints
from tiltlab.config.engine import EngineConfig
from tiltlab.config.methods import Arm, Sampled, Taught, named
from tiltlab.config.reading import yaml_value
from tiltlab.config.section import Section, Tokens
from tiltlab.config.tasks import Task, tagged
from tiltlab.config.testing import Tested, Testing, tested_on
from tiltlab.config.trained import Trained
from tiltlab.errors import UserError, brief, gathered, shown, words
from tiltlab.models.loading import ModelConfig
from tiltlab.models.server import is_served
from tiltlab.rewards.functions import DEADLINE, Reward, load_reward
from tiltlab.storage.files import Json, slug
from tiltlab.storage.old_names import NEW, OLD, renamed, renamed_override
from tiltlab.training.advantage import PassK
from tiltlab.training.alarms import Kind
from tiltlab.training.optimizer import OptimizerConfig
from tiltlab.training.signals import Truncated

Weight = Annotated[float, Field(allow_inf_nan=False)]
LONGEST_NAME = 200
"""Bytes: file systems take 255 in a name, and some files are named after it with more behind."""

Made = TypeVar("Made", bound=Section)


class Training(Section):
    """The budget that every trained arm gets.

    steps: updates, one a batch.
    prompts: in a batch.
    responses: to each prompt of a batch.
    max_tokens: of a response; while validating and testing too, where these do not say otherwise.
    micro_batch_tokens: response tokens (padding included) that one backward pass may hold.
    truncated: whether responses that max_tokens cuts off are left out of training, or count as they stand.
    optimizer: learning rate and the like.
    reward: a function of one's own, "package.module:function", in place of the task's; or several with weights.
    reward_deadline: seconds for one call of it.
    stop_on: alarms (alarms.py) that end an arm's training when they fire.
    """

    steps: Annotated[int, Field(ge=1, le=10**9)]
    prompts: Count
    responses: Annotated[Count, Field(ge=2)]
    max_tokens: Tokens
    micro_batch_tokens: PositiveInt = 4096
    truncated: Truncated = "drop"
    optimizer: OptimizerConfig = OptimizerConfig()
    reward: str | dict[str, Weight] | None = None
    reward_deadline: PositiveFloat = Field(DEADLINE, allow_inf_nan=False)
    stop_on: tuple[Kind, ...] = ()

    @field_validator("optimizer")
    @classmethod
    def _moves(cls, optimizer: OptimizerConfig) -> OptimizerConfig:
        if not optimizer.lr > 0:
            raise ValueError(f"lr must be above 0, got {optimizer.lr}")
        return optimizer

    @field_validator("reward")
    @classmethod
    def _some(cls, reward: str | dict[str, float] | None) -> str | dict[str, float] | None:
        if reward is not None and not reward:
            raise ValueError("reward names no function; write package.module:function, or leave it out")
        return reward

    def own_reward(self) -> Reward | None:
        """The user's reward, None where the task's is used. Raises UserError where it cannot be loaded."""
        return load_reward(self.reward, self.reward_deadline) if self.reward else None


class Validation(Section):
    """How the best checkpoint is chosen: by accuracy on the validation split.

    every: training steps between two evaluations.
    problems: of the split, the first ones.
    n: responses to each.
    max_tokens: of a response; `train.max_tokens` where left out.
    """

    every: PositiveInt
    problems: PositiveInt = 64
    n: Count = 4
    max_tokens: Tokens | None = None


class Recipe(Section):
    """Everything that decides what a study comes to, but for the number of seeds.

    name: of the study; its folder is called so.
    model: the base.
    engine: what draws the responses; the model itself where left out.
    tasks: at least one, each with a name of its own.
    arms: what is held side by side; at least one, each with a name of its own.
    train: the budget of the arms that train.
    validation: how the best checkpoint is chosen.
    test: what is reported: one test set or several.
    seed: the first one of the study.
    gpus: that each job has, with a process (rank) on each; on CPU only as many ranks.

    Raises pydantic's ValidationError for values that cannot be; `load_recipe` tells them in the recipe's own terms.
    """

    name: str
    model: ModelConfig = ModelConfig()
    engine: Annotated[EngineConfig, tagged("name")] = EngineConfig()
    tasks: list[Task] = Field(min_length=1)
    arms: list[Annotated[Arm, tagged("arm")]] = Field(min_length=1)
    train: Training
    validation: Validation
    test: Testing = Testing()
    seed: int = 0
    gpus: Annotated[int, Field(ge=1, le=1024)] = 1

    @field_validator("name")
    @classmethod
    def _folder(cls, name: str) -> str:
        if not re.fullmatch(r"\.*[\w-][\w.-]*", name) or len(name.encode()) > LONGEST_NAME:
            raise ValueError(
                f"the study's folder is called so: letters, digits, - and _, with dots among them, and no more than "
                f"{LONGEST_NAME} bytes, got {shown(name)}"
            )
        return name

    @field_validator("model")
    @classmethod
    def _has_weights(cls, model: ModelConfig) -> ModelConfig:
        if is_served(model.path):
            raise ValueError("a study needs the model's weights, and a server keeps them; name the model itself")
        return model

    @model_validator(mode="after")
    def _distinct(self) -> "Recipe":
        for kind, names in (("task", [t.name for t in self.tasks]), ("arm", [a.name for a in self.arms])):
            folders = [slug(name) for name in names]
            twice = [name for name, folder in zip(names, folders, strict=True) if folders.count(folder) > 1]
            if twice:
                raise ValueError(f"two {kind}s are called {twice[0]!r}, or nearly so; give one another name")
        return self

    @model_validator(mode="after")
    def _ranked(self) -> "Recipe":
        """Raises ValueError for what several ranks cannot have."""
        by_number = self.model.device not in ("auto", "cpu", "cuda")
        said = [*([f"model.device {self.model.device}"] if by_number else ()), *self.for_one_gpu()]
        if self.gpus > 1 and said:
            raise ValueError(f"gpus {self.gpus} does not go with {said[0]}: leave that out, or have one GPU a job")
        return self

    def for_one_gpu(self) -> list[str]:
        """What it asks for that only a job on one GPU can have, wherever it runs; none where several can do it."""
        asked = {
            f"engine.device {self.engine.device}": self.engine.device != "same",
            "train.optimizer.state 8bit": self.train.optimizer.state == "8bit",
            "model.decoding slots": self.model.decoding == "slots",
        }
        return [what for what, is_so in asked.items() if is_so]

    @model_validator(mode="after")
    def _tested(self) -> "Recipe":
        for task in self.tasks:
            self.tests_of(task.name)
        return self

    def tests_of(self, task: str) -> tuple[Tested, ...]:
        """The test sets of a training.

        task: that is trained on, by name.
        """
        number = [one.name for one in self.tasks].index(task)
        return tested_on(self.test, number, self.tasks, self.train.max_tokens)

    @model_validator(mode="after")
    def _enough_responses(self) -> "Recipe":
        for arm in self.arms:
            if isinstance(arm, Trained) and isinstance(arm.advantage, PassK):
                k, given = arm.advantage.passk, self.train.responses
                if k > given:
                    raise ValueError(f"arm {arm.name!r} needs train.responses of at least {k}, got {given}")
        return self


def with_defaults(kind: type[Section], recipe: Json) -> Json:
    """A recipe as it was kept, with what it may leave out: one of an older version knows nothing of newer keys."""
    try:
        return kind.model_validate(recipe).model_dump(mode="json")
    except ValidationError:  # of a version that knew other keys
        return recipe


def _samples(value: Any) -> Any:
    """Raises ValueError for an arm that trains, whatever its keys."""
    name = value.get("arm") if isinstance(value, dict) else value
    if isinstance(name, str) and name in named(Taught):
        raise ValueError(f"{name} trains a model; `tiltlab study` does that")
    return value


class SampleRecipe(Section):
    """What `tiltlab evaluate` draws: n responses to each problem of a split, by one sampler.

    model: that is drawn from.
    engine: what draws; the model itself where left out.
    task: whose problems they are, and who grades them.
    sampler: an arm that does not train.
    split: of the task.
    problems: the first ones of the split; all where left out.
    n: responses to each.
    max_tokens: of a response.
    seed: of the draws.
    reference: a second model that scores the responses too; the first where left out.
    reward: a function of one's own, "package.module:function", in place of the task's.
    """

    model: ModelConfig = ModelConfig()
    engine: Annotated[EngineConfig, tagged("name")] = EngineConfig()
    task: Task
    sampler: Annotated[Annotated[Sampled, Field(discriminator="arm")], tagged("arm"), BeforeValidator(_samples)]
    split: Literal["train", "validation", "test"] = "test"
    problems: PositiveInt | None = None
    n: Count = 16
    max_tokens: Tokens = 64
    seed: int = 0
    reference: str | None = None
    reward: str | None = None


OnNote = Callable[[str], None]


def load_recipe(path: str | None, overrides: Sequence[str] = (), on_note: OnNote = lambda _: None) -> Recipe:
    """A recipe from a YAML file, or the embedded default.

    path: of the file; the default where left out.
    overrides: "train.steps=5" and the like.
    on_note: told, once, of keys that are called by an old name.

    Raises UserError with one line for each thing that is wrong.
    """
    return _load(Recipe, path, "default.yaml", overrides, on_note)


def load_sample_recipe(
    path: str | None, overrides: Sequence[str] = (), on_note: OnNote = lambda _: None
) -> SampleRecipe:
    """A recipe for `tiltlab evaluate`; path, overrides, on_note and errors are those of `load_recipe`."""
    return _load(SampleRecipe, path, "sample.yaml", overrides, on_note)


def _load(kind: type[Made], path: str | None, default: str, overrides: Sequence[str], on_note: OnNote) -> Made:
    name = path or "the options given"
    text = _read(path) if path else (files("tiltlab.embedded") / default).read_text(encoding="utf-8")
    data = yaml_value(text, name)
    if not isinstance(data, dict):
        raise UserError(f"{name} must be a mapping with {', '.join(kind.model_fields)}")
    wrong: list[str] = []
    given, asked = renamed(data), [renamed_override(override) for override in overrides]
    is_old = given != data or asked != list(overrides)
    for override in asked:
        with gathered(wrong):
            _set(given, override)
    data = renamed(given)  # what was set may be a whole task
    if is_old or data != given:
        on_note(f"{name}: `{OLD}` is called `{NEW}` now; the old name is still read")
    try:
        made = kind.model_validate(data)
    except ValidationError as error:
        raise UserError(*wrong, *(f"{name}: {one}" for one in complaints(error, data))) from error
    if wrong:
        raise UserError(*wrong)
    return made


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"recipe {path} cannot be read: it is not UTF-8 ({brief(error)})") from error
    except (OSError, ValueError) as error:  # ValueError: a null in the path
        raise UserError(f"recipe {path} cannot be read: {words(error)}") from error


def _set(data: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    *parents, last = path.split(".")
    if not equals or not all((*parents, last)):
        raise UserError(f"--set {brief(override)}: write it as key.key=value")
    place: Any = data
    for parent in parents:
        key = _key(place, parent, override)
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[_key(place, last, override)] = yaml_value(value, f"the value of --set {brief(override, 100)}")


def _key(place: Any, part: str, override: str) -> Any:
    """`part` as a key of `place`: a name in a mapping, a number from 0 in a list."""
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise UserError(f"--set {override}: {part} is no key here, as {shown(place)} is no mapping")
    if part not in map(str, range(len(place))):
        raise UserError(f"--set {override}: {part} is no entry of a list of {len(place)}; they are counted from 0")
    return int(part)
