"""The JSON files of a run folder, as far as anything reads them: what a file must hold to be worked with.

Left out on purpose: reading them (shaped.py), records (records.py), and keys that nobody reads.
"""

from math import isfinite, isnan
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tiltlab.storage.natures import Kind, Nature


def _log_probability(value: float) -> float:
    if value > 1:  # what is above 0 by more than rounding
        raise ValueError("a log-probability is 0 at most")
    return value


def _share(value: float) -> float:
    if not (0 <= value <= 1 or isnan(value)):
        raise ValueError("it lies between 0 and 1")
    return value


Number = float | None
Notes = dict[str, list[Number | list[Number]]]


def _flat_log_z(notes: Notes) -> Notes:
    if any(isinstance(value, list) for value in notes.get("log_z", ())):
        raise ValueError("log_z is a number a problem")
    return notes


Count = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LogP = Annotated[float, AfterValidator(_log_probability)]
Share = Annotated[float, AfterValidator(_share)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class Info(_Shape):
    """A line of lots.jsonl: what drawing took (tiltlab.samplers.base.Info, which says what each field is).

    notes: by name a value a prompt; of power_mcmc also lists of values, by the place of the cut.
    """

    drawn: Count
    rescored: Count
    seconds: Amount
    notes: Annotated[Notes, AfterValidator(_flat_log_z)]
    warnings: list[str]


class Sampling(Info):
    """sampling-*.json: what drawing so many responses took.

    ranks: that drew them; older versions wrote none.
    """

    responses: Positive
    ranks: Positive = 1


class Made(_Shape):
    """How a result was made (tiltlab.system.provenance); commit is None where it ran from no checkout."""

    command: list[str]
    versions: dict[str, str]
    python: str
    machine: str
    commit: str | None


class _Fact(_Shape):
    problems: Count
    sha256: str


class _Arm(_Shape):
    arm: Kind
    temperature: Strength | None = None
    alpha: float | None = None
    beta: float | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"temperature": "temperature", "tempered": "alpha", "power_smc": "alpha"}.get(self.arm)
        if needed and not isinstance(getattr(self, needed), float | int):
            raise ValueError(f"arm {self.arm} needs a number {needed}")
        if self.arm == "power_smc" and self.beta is not None and not (isfinite(self.beta) and self.beta > 0):
            raise ValueError("beta must be above 0")
        return self


class _Model(_Shape):
    path: str


class _Train(_Shape):
    steps: Positive
    prompts: Positive
    responses: Positive


class _Test(_Shape):
    n: Positive


class _Recipe(_Shape):
    name: str
    seed: int = Field(ge=-(10**9), le=10**9)
    model: _Model
    arms: list[_Arm] = Field(min_length=1)
    train: _Train
    test: _Test


class _Tested(_Shape):
    name: str
    own: bool
    n: Positive
    max_tokens: Positive


class Study(_Shape):
    """study.json.

    recipe: as far as anything reads it.
    arms: names, in the recipe's order.
    natures: what each arm is; None where an older version wrote the file.
    seeds: how many.
    data: problems and hash of each split, by task and split.
    tests: what each task is tested on; its own test split alone where an older version wrote the file.
    made: how, once for each time that the study was begun or went on.
    """

    recipe: _Recipe
    arms: list[str]
    natures: list[Nature] | None = None
    seeds: int = Field(ge=1, le=10_000)
    data: dict[str, dict[str, _Fact]] = Field(min_length=1)
    tests: dict[str, Annotated[list[_Tested], Field(min_length=1)]] | None = None
    made: list[Made] = Field(min_length=1)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if len(self.arms) != len(self.recipe.arms) or len(set(self.arms)) < len(self.arms):
            raise ValueError("arms needs a name of its own for each arm of the recipe")
        if self.tests is not None and self.tests.keys() != self.data.keys():
            raise ValueError("tests needs an entry for each task of data")
        if self.natures is not None and len(self.natures) != len(self.arms):
            raise ValueError("natures needs one for each arm of the recipe")
        return self


class _Sampled(_Shape):
    n: Positive = 1
    reference: str | None = None


class Told(_Shape):
    """sample.json, where all that matters is what the records are of.

    recipe: None where another engine drew.
    questions: question and gold answer, by the problem's id.
    """

    recipe: _Sampled | None = None
    questions: dict[str, Annotated[list[str], Field(min_length=2, max_length=2)]] = {}


class Sample(Told):
    """sample.json.

    made: how.
    of: how many problems are to be drawn for.
    info: what drawing took, once all is drawn.
    records: how many, where another engine drew.
    """

    made: Made
    of: Positive | None = None
    info: Info | None = None
    records: Count | None = None


class Shown(_Shape):
    """A line of problems.jsonl: a problem of the test split, with its gold answer."""

    task: str
    id: str
    question: str
    answer: str


class Step(_Shape):
    """A line of metrics.jsonl: figures of one step, some of them in groups (tiltlab.training.step_metrics).

    ess, capped, weight_mean, kl_sampler: how far what drew the responses is from the policy; older versions wrote none.
    ranks: that made it; older versions wrote none.
    """

    __pydantic_extra__: dict[str, Number | dict[str, Number]]
    step: Count
    responses: Strength = 1
    groups: Strength = 1
    ranks: Positive = 1
    ess: Share | None = None
    capped: Share | None = None
    weight_mean: Number = None
    kl_sampler: Number = None


class Validated(_Shape):
    """A line of select.jsonl: accuracy on the validation split after a step, and how many responses it is of."""

    __pydantic_extra__: dict[str, Number]
    step: Count
    accuracy: Share
    graded: Count = 0


class TokenLine(_Shape):
    """A line of tokens-*.jsonl (tiltlab.evaluation.token_logprobs.TokenLine, which says what each field is)."""

    problem: str
    logp: list[LogP] = Field(min_length=1)
    ref_logp: list[LogP]
    ranks: list[Count]
    pieces: list[str] | None

    @model_validator(mode="after")
    def _even(self) -> Self:
        sizes = {len(self.logp), len(self.ref_logp), len(self.ranks)}
        if len(sizes | ({len(self.pieces)} if self.pieces is not None else set())) > 1:
            raise ValueError("logp, ref_logp, ranks and pieces are not of one length")
        return self


class Result(_Shape):
    """result.json.

    trained: whether the arm trains. Then step and best_step must be there.
    step: of the last checkpoint.
    best_step: of the checkpoint that was best on the validation split.
    stopped: the alarm that ended training before its last step, None where none did.
    """

    trained: bool
    step: Count = 0
    best_step: Count = 0
    stopped: str | None = None

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.trained and not {"step", "best_step"} <= self.model_fields_set:
            raise ValueError("a trained arm has a step and a best_step")
        return self


class Failed(_Shape):
    """failed.json: why a job could not be finished, as one line."""

    error: str


class _At(_Shape):
    host: str
    process: Positive
    space: str
    devices: list[str]
    ranks: Positive
    since: Amount


class Place(_Shape):
    """place.json (tiltlab.storage.place.Place, which says what each field is)."""

    seconds: Amount
    at: _At | None = None
