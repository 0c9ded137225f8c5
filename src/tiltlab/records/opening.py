"""A file or folder of another program -> its responses: of one format, and of one step of training.

Left out on purpose: problems and grades (evaluation/outside.py).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from tiltlab.errors import UserError, shown, words
from tiltlab.records import open_instruct, plain
from tiltlab.records.recognise import FORMATS, FormatName, is_own, recognised, unknown
from tiltlab.records.rows import files_in
from tiltlab.records.sample import Sample

Say = Callable[[str], None]
"""Told what there is to say, a line each."""

Step = int | Literal["first", "last"]


@dataclass(frozen=True)
class Reading:
    """How to read files of other programs.

    form: that they are of; None: it is told from their rows.
    fields: of plain rows, as `plain.read_map` takes them; None: of tiltlab's own names.
    tokenizer: its file tokenizer.json, or the folder that holds it, for files with token ids and no text.
    """

    form: FormatName | None = None
    fields: str | None = None
    tokenizer: Path | None = None


def read_samples(path: Path, how: Reading, step: Step, say: Say) -> list[Sample]:
    """The responses of a file, or of all files in a folder that are of one format.

    step: whose responses are taken, where there are those of several.
    say: told what was read.

    Raises UserError, naming file and row, for what cannot be read, and for a folder that holds nothing of the kind.
    """
    files = _files(path, step, say)
    forms: dict[Path, FormatName] = {}
    read: list[Sample] = []
    skipped: list[Path] = []
    for file in files:
        form, rows = recognised(file, how.form or ("plain" if how.fields else None))
        if form is None:
            if path.is_file():
                raise unknown(file, next(rows)[1])
            skipped.append(file)
            continue
        forms[file] = form
        named = _step_in(file)
        some = [s if s.step is not None else replace(s, step=named) for s in _reader(form, how)(rows)]
        _require_single(some)
        read += some
    form = _one(forms, path)
    if skipped:
        say(f"{path}: {len(skipped)} files are of no format that is known, and left out: {_few(skipped, path)}")
    chosen, of = _at_step(read, path, step)
    say(f"{path}: {FORMATS[form].title}, {len(chosen)} responses{of}")
    return chosen


def _files(path: Path, step: Step, say: Say) -> list[Path]:
    """The file, or those of the folder that hold the step, as far as their names say."""
    if not path.is_dir():
        return [path]
    if (path / "study.json").exists():
        raise UserError(
            f"{path} is a run folder of tiltlab; name the folder of one of its jobs, or `tiltlab report` it"
        )
    files = list(files_in(path))
    if own := next((file for file in files if file.name == "records.jsonl" and is_own(file)), None):
        raise UserError(f"{path} holds records of tiltlab's own; name the folder that they are in: {own.parent}")
    if not files:
        raise UserError(f"{path} holds no file of responses (.jsonl, .json, .parquet or .eval)")
    for kept, others in (({"eval", "val"}, {"train"}), ({"all"}, {"effective"})):
        kinds = {file: _kinds(file, path) for file in files}
        some = [file for file in files if kinds[file] & kept]
        if some and any(kinds[file] & others for file in files):
            say(f"{path}: holds {_or(kept & set().union(*kinds.values()))} and {_or(others)}; the first is read")
            files = [file for file in files if not kinds[file] & others]
    steps = {file: _step_in(file) for file in files}
    known = sorted({number for number in steps.values() if number is not None})
    if len(known) < 2 or None in steps.values():
        return files
    wanted = _chosen(known, path, step)
    say(f"{path}: of {len(known)} steps ({known[0]} to {known[-1]}), those of step {wanted} are read")
    return [file for file in files if steps[file] == wanted]


def _kinds(file: Path, folder: Path) -> set[str]:
    """What the parts of a name say that a file holds."""
    return {part.split("_")[0] for part in file.relative_to(folder).parts}


def _or(kinds: Iterable[str]) -> str:
    return " or ".join(sorted(kinds))


_STEPS = re.compile(r"(?:^|step_?|completions_)(\d{1,12})$")


def _step_in(file: Path) -> int | None:
    """The step in a file's name, or that of one of its folders."""
    for name in (file.stem, *(parent.name for parent in list(file.parents)[:4] if parent.name.startswith("step_"))):
        if found := _STEPS.search(name):
            return int(found[1])
    return None


def _chosen(known: Sequence[int], path: Path, step: Step) -> int:
    if step == "first" or step == "last":
        return known[0] if step == "first" else known[-1]
    if step not in known:
        raise UserError(f"{path} has no responses of step {step}; it has those of {', '.join(map(str, known))[:200]}")
    return step


def _at_step(read: Sequence[Sample], path: Path, step: Step) -> tuple[list[Sample], str]:
    """The responses of one step, and which that is."""
    known = sorted({sample.step for sample in read if sample.step is not None})
    if not known or (len(known) == 1 and isinstance(step, str)):
        return list(read), f" of step {known[0]}" if known else ""
    wanted = _chosen(known, path, step)
    of = f" of step {wanted}" + (f" (of {len(known)} steps, {known[0]} to {known[-1]})" if len(known) > 1 else "")
    return [sample for sample in read if sample.step == wanted], of


def _reader(form: FormatName, how: Reading) -> Callable[..., Iterable[Sample]]:
    if form == "plain" and how.fields:
        return partial(plain.samples, paths=plain.read_map(how.fields))
    if form == "open-instruct" and how.tokenizer:
        return partial(open_instruct.samples, decode=_decoder(how.tokenizer))
    return FORMATS[form].samples


def _decoder(named: Path) -> open_instruct.Decode:
    from tokenizers import Tokenizer

    file = named / "tokenizer.json" if named.is_dir() else named
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"tokenizer {file} cannot be read: {words(error)}") from error
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _require_single(samples: Sequence[Sample]) -> None:
    """Check that a file has no two that are the same sample of a problem, as far as it numbers them."""
    places: dict[tuple[str, str, int | None, int], str] = {}
    for sample in samples:
        if sample.number is not None and (sample.problem or sample.prompt):
            key = (sample.task, sample.problem or sample.prompt, sample.step, sample.number)
            first = places.setdefault(key, sample.where)
            if first != sample.where:
                raise UserError(
                    f"{sample.where} is sample {sample.number} of problem {shown(key[1])}, as {first} is; "
                    "keep one of the two"
                )


def _one(forms: dict[Path, FormatName], path: Path) -> FormatName:
    """The one format of all files."""
    kinds = {form: file for file, form in reversed(forms.items())}
    if not kinds:
        raise UserError(f"{path} holds no file of a format that is known (docs/records.md)")
    if len(kinds) > 1:
        told = ", ".join(f"{file.relative_to(path)} is {FORMATS[form].title}" for form, file in kinds.items())
        raise UserError(f"{path} holds files of several formats ({told}); name one of the files")
    return next(iter(kinds))


def _few(files: Sequence[Path], folder: Path) -> str:
    names = [str(file.relative_to(folder)) for file in files[:3]]
    return ", ".join(names) + (", ..." if len(files) > 3 else "")
