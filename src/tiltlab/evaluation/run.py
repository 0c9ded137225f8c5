"""Model x sampler x task -> a folder: records.jsonl, ids.jsonl (their token ids), tokens.jsonl (a few of them token by
token), and sample.json that says how they were made.

Problems are done some at a time, and each lot is on the disk before the next begins: stopped or killed, the same
command goes on where it was, and ends with the same records. Responses of other engines (`from_elsewhere`) are graded
into the same form.

Left out on purpose: figures (report/evaluation.py).
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tiltlab.config.memory_keys import without_memory_keys
from tiltlab.config.recipe import SampleRecipe, with_defaults
from tiltlab.config.votable import require_votable
from tiltlab.engines.make import drawn_by, require_engine
from tiltlab.errors import UserError, gathered
from tiltlab.evaluation.evaluate import evaluate
from tiltlab.evaluation.outside import Asked, read_outside
from tiltlab.evaluation.responses import read_responses
from tiltlab.evaluation.token_logprobs import COUNTED, token_lines
from tiltlab.models.base import LanguageModel
from tiltlab.models.chat import today
from tiltlab.models.codec import Codec
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec, load_reference, pick_device
from tiltlab.models.server import is_served
from tiltlab.models.sizes import ON_CPU
from tiltlab.rewards.functions import Reward, load_reward
from tiltlab.samplers.base import Info, together
from tiltlab.seeds import derive, split_key
from tiltlab.storage import shapes
from tiltlab.storage.files import Json, append_lines, keep_first, read_lines, whole_lines, write_json, write_lines
from tiltlab.storage.old_names import renamed
from tiltlab.storage.place import at_work
from tiltlab.storage.records import read_records, record_line, write_records
from tiltlab.storage.run_folder import kept_date
from tiltlab.storage.shaped import or_else, read_shaped, read_shaped_lines
from tiltlab.storage.token_ids import ids_line
from tiltlab.system.devices import own_number
from tiltlab.system.provenance import provenance
from tiltlab.tasks.base import Task, grade_texts
from tiltlab.types import Problem, Record, Rollout

LOT = 16
"""Problems between two writes, at most: fewer where their responses do not fit one forward side by side."""


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is.

    done: problems; a fraction stands for a share of those that are being drawn, and is a lower bound, as their
        responses may end before the limit.
    of: problems in all.
    tokens: drawn by this process.
    """

    done: float
    of: int
    tokens: int


def run_sample(
    recipe: SampleRecipe,
    folder: Path,
    device: str,
    on_progress: Callable[[Progress], None],
    on_note: Callable[[str], None] = lambda _: None,
) -> tuple[list[Record], Info]:
    """Draw, grade and write, or go on. Returns all records, and what drawing them took.

    recipe: model, task, sampler and sizes.
    folder: what was made before in it is kept; the caller holds it against other processes.
    device: as torch names it.
    on_progress: told at each step of decoding how far that is.
    on_note: told what there is to say of the model, a line at a time.

    Raises UserError, before anything is written, for a model, a problem or a reward that cannot be used, and for a
    folder that holds something else.
    """
    date = recipe.model.date or kept_date(folder / "sample.json") or today()
    config = replace(recipe.model, device=device, date=date)
    problems, codec, reward = _checked(recipe, config)
    longest = max(len(codec.encode(recipe.task.render(problem), recipe.max_tokens)) for problem in problems)
    about = _about(recipe, folder, date, lot=_lot(config, (longest + recipe.max_tokens) * recipe.n), of=len(problems))
    models = None if "info" in about else _models(recipe, config, codec)
    for note in codec.notes([recipe.task.render(problems[0])]):
        on_note(note)
    size = about.get("lot", LOT)
    lots = [problems[start : start + size] for start in range(0, len(problems), size)]
    if "info" not in about:
        write_json(folder / "sample.json", about)
    done = _done(folder, recipe.n, lots, with_tokens=not is_served(recipe.model.path))
    if done < len(lots):
        model, other = models or _models(recipe, config, codec)
        counted = _Counted(len(problems), on_progress, sum(map(len, lots[:done])))
        model.tell = counted.drew
        most = recipe.sampler.sampler().drawn(recipe.n) * recipe.max_tokens
        with at_work(folder, [own_number(device)]), drawn_by(recipe.engine, model) as drawing:
            for lot in lots[done:]:
                counted.begin(len(lot), len(lot) * most)
                _draw_lot(recipe, folder, drawing, drawing if other is model else other, reward, lot)
        counted.begin(0, 1)
    info = together([Info(**(line | {"warnings": tuple(line["warnings"])})) for line in _lots(folder)])
    write_json(folder / "sample.json", about | {"info": asdict(info), "questions": _questions(problems)})
    return read_records(folder / "records.jsonl"), info


def _lot(config: ModelConfig, tokens: int) -> int:
    """Problems that are drawn between two writings. tokens: that the responses to one of them may take."""
    if is_served(config.path):
        return LOT
    if config.batch_tokens == "auto":  # on a GPU as many are held as fit, which is known once the model is there
        return max(1, min(LOT, ON_CPU // tokens)) if pick_device(config) == "cpu" else LOT
    return max(1, min(LOT, config.batch_tokens // tokens))


def _checked(recipe: SampleRecipe, config: ModelConfig) -> tuple[Sequence[Problem], Codec, Reward | None]:
    """What the recipe names, but for weights. Raises UserError with a line for each thing that cannot be used."""
    wrong: list[str] = []
    problems: Sequence[Problem] = ()
    codec, reward = None, None
    with gathered(wrong, "task"):
        problems = recipe.task.problems(recipe.split)[: recipe.problems]
        if not problems:
            raise UserError(f"task {recipe.task.name} has no problem in its {recipe.split} split")
        require_votable(recipe.task, problems, [recipe.sampler])
    with gathered(wrong):
        codec = load_codec(config)
    with gathered(wrong):
        require_engine(recipe.engine, config.path, samplers=[recipe.sampler.sampler()])
    with gathered(wrong):
        if recipe.reference:
            load_codec(replace(config, path=recipe.reference))
    with gathered(wrong):
        reward = load_reward(recipe.reward) if recipe.reward else None
    if wrong or codec is None:
        raise UserError(*wrong)
    return problems, codec, reward


def _draw_lot(
    recipe: SampleRecipe,
    folder: Path,
    model: LanguageModel,
    other: LanguageModel,
    reward: Reward | None,
    lot: Sequence[Problem],
) -> None:
    """Draw and grade the responses to some problems, and add them to the folder."""
    seed = derive(recipe.seed, split_key(recipe.split))
    settings: dict[str, Any] = {"n": recipe.n, "max_tokens": recipe.max_tokens, "seed": seed, "reward": reward}
    ids: list[Json] = []

    def keep(problems: Sequence[Problem], rollouts_PG: Sequence[Sequence[Rollout]]) -> None:
        for problem, group in zip(problems, rollouts_PG, strict=True):
            ids.extend(ids_line(problem.id, g, rollout.tokens) for g, rollout in enumerate(group))

    sampler = recipe.sampler.sampler()
    records, info, first_P = evaluate(model, other, sampler, recipe.task, lot, **settings, on_rollouts=keep)
    prompts = [recipe.task.render(problem) for problem in lot]
    if not is_served(recipe.model.path):  # a server has neither token ids nor logits to tell
        told = len(read_lines(folder / "tokens.jsonl"))
        append_lines(folder / "tokens.jsonl", token_lines(other, lot, prompts, first_P, told))
        if (folder / "ids.jsonl").exists() or not (folder / "records.jsonl").exists():  # never some of them
            append_lines(folder / "ids.jsonl", ids)
    append_lines(folder / "records.jsonl", [record_line(record) for record in records])
    append_lines(folder / "lots.jsonl", [asdict(info)])


class _Counted:
    """Adds up what decoding tells of each step, and tells how far the evaluation is."""

    def __init__(self, of: int, on_progress: Callable[[Progress], None], done: int) -> None:
        self._of, self._on_progress, self._done = of, on_progress, done
        self._tokens = self._before = 0
        self._problems, self._most = 0, 1

    def begin(self, problems: int, most: int) -> None:
        """So many problems are drawn next, with so many tokens at most; those before are done."""
        self._done += self._problems
        self._problems, self._most, self._before = problems, most, self._tokens
        self.drew(0)

    def drew(self, tokens: int) -> None:
        self._tokens += tokens
        share = min(1.0, (self._tokens - self._before) / self._most)
        self._on_progress(Progress(self._done + share * self._problems, self._of, self._tokens))


def _models(recipe: SampleRecipe, config: ModelConfig, codec: Codec) -> tuple[HFModel, HFModel]:
    """The model that draws, and the one that scores too."""
    model: HFModel = load_reference(config, codec)
    if not recipe.reference:
        return model, model
    named = replace(config, path=recipe.reference)
    return model, load_reference(named, load_codec(named))


def from_elsewhere(file: Path, task: Task, folder: Path) -> list[Record]:
    """Grade responses that another engine drew to problems of the task's test split, and write their records.

    file: JSONL with a line a response: {"problem": id, or "question": its text, "text": the response}, and where known
        "sample" (its number among the problem's; in order where left out), "tokens" (0 where left out), "complete"
        (true), "logp" and "ref_logp" (nats; null).
    folder: to write to.

    Raises UserError, naming the line, for one that cannot be used, and for a folder whose records a model drew.
    """
    responses = read_responses(file, task.problems("test"), f"task {task.name}'s test split")
    _require_no_drawn(folder)
    problems = [response.problem for response in responses]
    grades = grade_texts(task, problems, [response.text for response in responses])
    records = [
        Record(
            task=task.name,
            problem=response.problem.id,
            sample=response.sample,
            text=response.text,
            answer=grade.answer,
            reward=grade.reward,
            reason=grade.reason,
            tokens=response.tokens,
            complete=response.complete,
            logp=response.logp,
            ref_logp=response.ref_logp,
        )
        for response, grade in zip(responses, grades, strict=True)
    ]
    _write(records, problems, file, folder)
    return records


def from_outside(file: Path, asked: Asked, folder: Path) -> list[Record]:
    """Likewise of a file or folder of another program (docs/records.md), and graded as that says.

    asked: how to take it; the task may be left out, where the file has grades of its own.
    folder: to write to.

    Raises UserError, naming file and row, for what cannot be used, and for a folder whose records a model drew.
    """
    _require_no_drawn(folder)
    told = read_outside(file, asked, "last" if asked.step is None else asked.step)
    _write(told.records, [*told.problems.values()], file, folder)
    both = zip(told.records, told.samples, strict=True)
    if ids := [ids_line(r.problem, r.sample, sample.ids) for r, sample in both if sample.ids]:
        write_lines(folder / "ids.jsonl", ids)
    return told.records


def _write(records: Sequence[Record], problems: Sequence[Problem], file: Path, folder: Path) -> None:
    write_records(folder / "records.jsonl", records)
    about = {"responses": str(file), "records": len(records), "made": provenance(), "questions": _questions(problems)}
    write_json(folder / "sample.json", about)


def _require_no_drawn(folder: Path) -> None:
    """Raises UserError for a folder whose records a model has drawn: they are not to be lost to others'."""
    if "recipe" in (_sample(folder) or {}) and whole_lines(folder / "lots.jsonl"):
        raise UserError(f"{folder} holds records that a model drew; choose another --out, or remove the folder")


def _about(recipe: SampleRecipe, folder: Path, date: dt.date, lot: int, of: int) -> Json:
    """What sample.json is to say, or says already. Raises UserError for a folder that holds records of something else;
    one in which no lot was finished holds none."""
    wanted = recipe.model_dump(mode="json")
    about = _sample(folder)
    if about is None and whole_lines(folder / "records.jsonl"):
        raise UserError(f"{folder} holds records, and no sample.json that says of what; choose another --out")
    if about is None or ("recipe" in about and not whole_lines(folder / "lots.jsonl")):
        return {"recipe": wanted, "made": provenance(), "date": str(date), "lot": lot, "of": of}
    before = without_memory_keys(with_defaults(SampleRecipe, renamed(about.get("recipe") or {})))
    for key, value in without_memory_keys(wanted).items():
        if before.get(key) != value:
            raise UserError(f"{folder} holds records of another {key}; choose another --out, or remove the folder")
    return about


def _sample(folder: Path) -> Json | None:
    """sample.json, None where there is none."""
    with or_else("put a copy of it back, or choose another --out"):
        return read_shaped(folder / "sample.json", shapes.Sample) if (folder / "sample.json").exists() else None


def _lots(folder: Path) -> list[Json]:
    with or_else("remove it, and the same command begins anew"):
        return read_shaped_lines(folder / "lots.jsonl", shapes.Info, ended=False)


def _done(folder: Path, n: int, lots: Sequence[Sequence[Problem]], *, with_tokens: bool) -> int:
    """How many lots are whole on the disk: records, ids, tokens and notes. What was written of others is dropped.

    with_tokens: whether some responses of each lot are kept token by token.
    """
    paths = [folder / name for name in ("records.jsonl", "tokens.jsonl", "lots.jsonl", "ids.jsonl")]
    records, tokens, notes, ids = (whole_lines(path) for path in paths)
    with_ids = paths[-1].exists()  # folders of older versions have none
    kept = rows = shown = 0
    for lot in lots[: len(notes)]:
        own = records[rows : rows + len(lot) * n]
        first = [row.get("problem") for row in own if row.get("sample") == 0 and row.get("tokens")]
        told = first[: COUNTED - shown] if with_tokens else []
        wanted = [problem.id for problem in lot for _ in range(n)]
        drawn = [own, ids[rows : rows + len(own)]] if with_ids else [own]
        whole = all([row.get("problem") for row in part] == wanted for part in drawn)
        if not whole or [line.get("problem") for line in tokens[shown : shown + len(told)]] != told:
            break
        kept, rows, shown = kept + 1, rows + len(own), shown + len(told)
    for path, count in zip(paths, (rows, shown, kept, rows), strict=True):
        if path.exists():
            keep_first(path, count)
    return kept


def _questions(problems: Sequence[Problem]) -> dict[str, list[str]]:
    """Question and gold answer by problem id."""
    return {problem.id: [problem.question, problem.answer] for problem in problems}
