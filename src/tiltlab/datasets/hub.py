"""Rows of a data set on the Hugging Face hub, or of a local folder in the hub's layout.

HF_HUB_OFFLINE and the hub's own cache and token are honoured, as the `datasets` package does. It is asked for version 4
or later, which runs no code of a data set; images and other encoded cells are left as they are, undecoded.
"""

from dataclasses import dataclass
from typing import ClassVar

from tiltlab.datasets.files import Rows
from tiltlab.errors import UserError, said


@dataclass(frozen=True)
class Hub:
    """One split of a data set.

    hub: its id, owner/name, or a folder.
    config: of the data set, where it has several.
    split: its name on the hub.
    revision: a commit, branch or tag; a commit, so that no later edit changes the problems.
    """

    hub: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __str__(self) -> str:
        return " ".join(part for part in (self.hub, self.config, self.split) if part)


def hub_rows(source: Hub) -> Rows:
    """Every row of the split. Raises UserError where the hub cannot be reached, or has no such set, config or split."""
    import datasets

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(source.hub, source.config, split=source.split, revision=source.revision)
        rows = data.with_format("arrow")[:].to_pylist()
    except Exception as error:  # the hub's clients raise errors of a dozen kinds, from three packages
        raise UserError(
            f"data set {source} cannot be loaded ({said(error)}); check its name, the network and HF_HUB_OFFLINE, "
            "or give a file of your own (train, test: FILE in a recipe, --data FILE elsewhere)"
        ) from error
    for i, row in enumerate(rows, start=1):
        yield f"{source} row {i}", row
