"""A folder's records and page, put on the Hugging Face hub as a data set. Nothing goes there unless it is asked for."""

from pathlib import Path
from typing import Any, Protocol

from tiltlab.errors import UserError, brief


class Api(Protocol):
    """What is used of huggingface_hub.HfApi."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any:
        """Make a repository."""
        ...

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, commit_message: str) -> Any:
        """Put the files of a folder into it."""
        ...


def push(folder: Path, repository: str, *, private: bool, api: Api | None = None) -> str:
    """Put a folder on the hub as a data set. Returns its address.

    folder: as `write_dataset` makes it, a page beside it or not.
    repository: OWNER/NAME; made where it is not there.
    private: whether a new one is.
    api: the hub's own where left out; it takes its key from the environment or from `hf auth login`.

    Raises UserError for whatever the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    hub: Api = api or HfApi()
    try:
        hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, repo_type="dataset", folder_path=folder, commit_message="Records and page of tiltlab"
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UserError(
            f"{repository} could not be written on the hub: {brief(error)}; what would have gone there is in {folder}"
        ) from error
    return f"https://huggingface.co/datasets/{repository}"
