"""Checkpoints of one training: folders that are complete from the moment they are there.

Left out on purpose: what is in them (a model writes its weights, study/resume.py the rest).
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tiltlab.errors import UserError, words
from tiltlab.storage.files import make_folder
from tiltlab.storage.folder import FREE, is_full


@dataclass(frozen=True)
class Checkpoints:
    """Folders step-N, each complete from the moment it is there.

    path: the folder that holds them; need not be there yet.
    """

    path: Path

    def step(self, step: int) -> Path:
        """The folder of a step's checkpoint."""
        return self.path / f"step-{step:06d}"

    def state(self, step: int) -> Path:
        """The file that says how far training had come, and which checkpoint was best."""
        return self.step(step) / "state.json"

    def optimizer(self, step: int) -> Path:
        """The file of the optimizer's moments; a folder, where several ranks wrote them."""
        return self.step(step) / "optimizer.safetensors"

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, in order."""
        folders = (folder for folder in self.path.glob("step-*") if folder.name[5:].isdecimal() and folder.is_dir())
        return sorted(int(folder.name[5:]) for folder in folders)

    def forget_optimizers(self) -> None:
        """Remove all moments: nothing is to go on from here."""
        for moments in map(self.optimizer, self.steps()):
            if moments.is_dir():
                shutil.rmtree(moments)
            else:
                moments.unlink(missing_ok=True)

    def unfinished(self, step: int) -> Path:
        """What `new` yields."""
        return self.path / f"part-{step:06d}"

    @contextmanager
    def new(self, step: int, bytes_needed: int) -> Iterator[Path]:
        """An empty folder to fill; it becomes step-N when the block ends, or vanishes if the block fails.

        bytes_needed: what will be written, about.

        Raises UserError where the disk has no room for it; checkpoints that are there already stay.
        """
        make_folder(self.path)
        target, part = self.step(step), self.unfinished(step)
        shutil.rmtree(part, ignore_errors=True)
        kept = f"the checkpoint of step {self.steps()[-1]} is kept" if self.steps() else "there is none before it"
        free = shutil.disk_usage(self.path).free
        if free < bytes_needed:
            raise UserError(
                f"no room for the checkpoint of step {step} in {self.path}: it takes {_size(bytes_needed)} and "
                f"{_size(free)} are free ({kept}); {FREE}"
            )
        try:
            part.mkdir()
            yield part
            _sync(*part.rglob("*"), part)
            shutil.rmtree(target, ignore_errors=True)
            part.rename(target)
            _sync(self.path)
        except Exception as error:
            shutil.rmtree(part, ignore_errors=True)
            cause = error.__cause__ if isinstance(error, UserError) else error
            if isinstance(cause, OSError) or is_full(cause):
                todo = FREE if is_full(cause) else "make that possible and give the same command again"
                said = f"the checkpoint of step {step} could not be written to {self.path}"
                raise UserError(f"{said} ({words(cause)}; {kept}); {todo}") from error
            raise

    def keep(self, steps: Iterable[int]) -> None:
        """Remove all checkpoints but these, and what an interrupted save has left."""
        wanted = {self.step(step).name for step in steps}
        for folder in self.path.iterdir() if self.path.is_dir() else ():
            if folder.name not in wanted:
                shutil.rmtree(folder)


def _sync(*paths: Path) -> None:
    """Wait until files and folders are on the disk: after a power cut, a rename may otherwise outlive its files."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count > 1e9 else f"{count / 1e6:.1f} MB"
