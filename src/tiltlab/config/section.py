"""What every section of a recipe is: frozen, and with no keys but its own."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Tokens = Annotated[int, Field(ge=1, le=10**7)]
"""A response's, at most. The model's own context, where it names one, is found to be too short later on."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
