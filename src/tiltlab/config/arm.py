"""What every arm of a study has: a name, a way to sample, perhaps an objective."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tiltlab.objective import Objective
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.temperature import Temperature
from tiltlab.storage.natures import Nature

MOST = 100_000
"""Of responses, particles and the like that are held side by side: more is a slip of the finger, and fills memory."""

Count = Annotated[int, Field(ge=1, le=MOST)]

LONGEST_LABEL = 80
"""Characters: a label stands in tables and names a folder."""


class AnyArm(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str | None = None
    """How the arm is called in tables; made from its values where it is left out."""

    @field_validator("label")
    @classmethod
    def _readable(cls, label: str | None) -> str | None:
        if label is not None and not (label.strip() and label.isprintable() and len(label) <= LONGEST_LABEL):
            raise ValueError(
                f"a label is one line of 1 to {LONGEST_LABEL} printable characters, got {label[:LONGEST_LABEL]!r}"
            )
        return label

    @property
    def name(self) -> str:
        return self.label or self._described()

    @property
    def nature(self) -> Nature:
        """What the arm is to the arms beside it."""
        return "likelihood"

    @property
    def votes(self) -> bool:
        """Whether it counts answers that are the same: answers need a normal form for that."""
        return False

    def _described(self) -> str:
        raise NotImplementedError

    def sampler(self) -> Sampler:
        """How the model is sampled when it is evaluated. Raises ValueError for settings that make no sampler."""
        return Temperature(1.0)

    @model_validator(mode="after")
    def _usable(self) -> "AnyArm":
        self.sampler()
        self.objective()
        return self

    def objective(self) -> Objective | None:
        """What the model is trained on; None for an arm that only samples the base. Raises ValueError for weights that
        make no objective."""
        return None
