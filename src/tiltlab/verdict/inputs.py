"""Two models, or two files of records -> what `verdict` looks at: responses of both, and of the base sharpened.

Left out on purpose: training, and the decision (verdict.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import isnan, nan
from pathlib import Path
from typing import Any

from tiltlab.config.engine import HF, EngineConfig
from tiltlab.engines.make import drawn_by, require_engine
from tiltlab.errors import UserError
from tiltlab.evaluation.evaluate import Evaluated, evaluate
from tiltlab.evaluation.opened import about_records, open_records, read_leniently, told_leniently
from tiltlab.evaluation.outside import Asked
from tiltlab.evaluation.token_logprobs import token_lines
from tiltlab.forecast.frontier import kl_by_z
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec, load_reference
from tiltlab.samplers.base import Sampler
from tiltlab.samplers.power_smc import PowerSMC
from tiltlab.samplers.temperature import Temperature
from tiltlab.seeds import derive
from tiltlab.storage.natures import nature_of
from tiltlab.storage.shaped import or_else, read_shaped_lines
from tiltlab.storage.shapes import TokenLine
from tiltlab.tasks.base import Task
from tiltlab.types import UNKNOWN, Problem, Record
from tiltlab.verdict.verdict import Evidence

POWERS: dict[str, PowerSMC] = {f"power SMC {alpha}": PowerSMC(alpha, 16) for alpha in (2, 4, 8)}
"""Samplers that sharpen the base with nothing but its likelihood."""

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Examined(Evidence):
    """The evidence, and what pages show beside it.

    power_kls: by power, the KL of its distribution from the base on each problem, in nats.
    tokens: by "base" and "tuned", lines of tokens.jsonl.
    questions: by problem id, as far as they are known.
    """

    power_kls: dict[str, list[float]] = field(default_factory=dict)
    tokens: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)


def from_files(base: Path, tuned: Path, rivals: Sequence[Path] = (), asked: Asked | None = None) -> Examined:
    """Records as `tiltlab evaluate` writes them, or files of other programs, or the folders that hold them.

    asked: how files of other programs are to be taken.

    Raises UserError for a file that holds no responses.
    """
    asked = asked or Asked()
    before = open_records(base, asked, "first")
    after = open_records(tuned, asked, "last" if asked.step is None else asked.step)
    before, after = before.with_records(_own_reference), after.with_records(_unscored)
    of_base, of_tuned = before.records, after.records
    _in_common(of_base, base, of_tuned, tuned)
    if all(isnan(record.ref_logp) for record in of_tuned):
        asked.say(
            f"{tuned}: no log-probabilities under the base, so the verdict is told from answers alone; "
            "`tiltlab score --model BASE` fills them in, or hand both models to `tiltlab verdict`"
        )
    drawn = dict(zip(_names(rivals), rivals, strict=True))
    voted = {name for name, path in drawn.items() if _is_voted(path)}
    drawn_records = {name: open_records(path, asked, "last").records for name, path in drawn.items()}
    return Examined(
        of_base,
        of_tuned,
        rivals={name: records for name, records in drawn_records.items() if name not in voted},
        voted={name: records for name, records in drawn_records.items() if name in voted},
        lenient=_both_or_none(told_leniently(before), told_leniently(after)),
        unread=any(not of.graded and all(r.answer is None for r in of.records) for of in (before, after)),
        tokens={"base": [], "tuned": _tokens(tuned)} | ({"base": _tokens(base)} if _alone(base) else {}),
        questions={name: problem.question for name, problem in (before.problems | after.problems).items()},
    )


def _own_reference(records: Sequence[Record]) -> list[Record]:
    """Records of a model as its own reference."""
    logps = [record.ref_logp if isnan(record.logp) else record.logp for record in records]
    return [replace(record, logp=logp, ref_logp=logp) for record, logp in zip(records, logps, strict=True)]


def _unscored(records: Sequence[Record]) -> list[Record]:
    """Records whose log p under the base is not known where it is that under the model itself: nobody named a base."""
    if any(not isnan(record.ref_logp) and record.ref_logp != record.logp for record in records):
        return list(records)
    return [replace(record, ref_logp=nan) for record in records]


def _in_common(of_base: Sequence[Record], base: Path | str, of_tuned: Sequence[Record], tuned: Path | str) -> None:
    known = [{(r.task, r.problem) for r in records if r.reason not in UNKNOWN} for records in (of_base, of_tuned)]
    for problems, path in zip(known, (base, tuned), strict=True):
        if not problems:
            raise UserError(f"{path} holds no response that could be graded")
    if not known[0] & known[1]:
        (task, problem), (other_task, other) = (min(problems) for problems in known)
        raise UserError(
            f"{base} and {tuned} have no problem in common (say, {task} {problem!r} and {other_task} {other!r}); "
            "a verdict takes both models' responses to the same problems"
        )


def base_records(path: Path, asked: Asked | None = None) -> list[Record]:
    """Records of a model as its own reference. Raises UserError for a file or folder that holds none."""
    asked = asked or Asked()
    return _own_reference(open_records(path, asked, "first" if asked.step is None else asked.step).records)


def from_models(
    base: ModelConfig,
    tuned: str,
    task: Task,
    *,
    problems: int | None,
    n: int,
    max_tokens: int,
    seed: int,
    engine: EngineConfig = HF,
    on_progress: OnProgress = lambda *_: None,
    on_note: Callable[[str], None] = lambda _: None,
) -> Examined:
    """Draw n responses to each problem of the test split from both models, score each under both, and sharpen the base.

    tuned: a model as for `ModelConfig.path`, or a folder with adapters on the base. engine: what draws from both.
    `on_note` is told what there is to say of the models. Raises UserError for what cannot be used, and for two models
    that do not share a vocabulary.
    """
    require_engine(engine, base.path, tuned)
    chosen = _chosen(task, problems)
    prompts = [task.render(problem) for problem in chosen]
    settings: dict[str, Any] = {"n": n, "max_tokens": max_tokens}

    def draw(what: str, model: HFModel, other: HFModel, by: EngineConfig, how: Sampler | None = None) -> Evaluated:
        settings["on_progress"] = lambda done: on_progress(what, done, len(chosen))
        with drawn_by(by, model) as drawing:
            return evaluate(drawing, other, how or Temperature(), task, chosen, **settings, seed=derive(seed, what))

    with _both(base, tuned) as (of_base, of_tuned):
        for note in dict.fromkeys(note for model in (of_base, of_tuned) for note in model.codec.notes(prompts[:1])):
            on_note(note)
        crossed, after = draw("base", of_base, of_tuned, engine), draw("tuned", of_tuned, of_base, engine)
        first = {"base": crossed.first_P, "tuned": after.first_P}
        tokens = {what: token_lines(of_base, chosen, prompts, first_P) for what, first_P in first.items()}
        powers = {name: draw(name, of_base, of_base, HF, sampler) for name, sampler in POWERS.items()}
    before = [replace(record, ref_logp=record.logp) for record in crossed.records]
    by_id = {problem.id: problem for problem in chosen}
    _in_common(before, base.path, after.records, tuned)
    return Examined(
        before,
        after.records,
        [record.ref_logp for record in crossed.records],
        powers={name: evaluated.records for name, evaluated in powers.items()},
        power_kls={name: _kls(POWERS[name], evaluated) for name, evaluated in powers.items()},
        tokens=tokens,
        questions={problem.id: problem.question for problem in chosen},
        lenient=_both_or_none(*(read_leniently(task, by_id, records) for records in (before, after.records))),
    )


def _chosen(task: Task, problems: int | None) -> Sequence[Problem]:
    chosen = task.problems("test")[:problems]
    if not chosen:
        raise UserError(f"task {task.name} has no problem in its test split")
    return chosen


def _kls(sampler: PowerSMC, evaluated: Evaluated) -> list[float]:
    return list(kl_by_z(evaluated.records, evaluated.info.notes["log_z"], sampler.alpha).values())


@contextmanager
def _both(base: ModelConfig, tuned: str) -> Iterator[tuple[HFModel, HFModel]]:
    codec = load_codec(base)
    reference = load_reference(base, codec)
    if (Path(tuned) / "adapter_config.json").is_file():
        yield _adapted(reference, tuned)
        return
    config = replace(base, path=tuned)
    other = load_codec(config)
    if other.tokenizer.get_vocab() != codec.tokenizer.get_vocab():
        raise UserError(f"{tuned} and {base.path} have different vocabularies: neither can score the other's tokens")
    yield reference, load_reference(config, other)


def _adapted(reference: HFModel, folder: str) -> tuple[HFModel, HFModel]:
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError("adapters need peft; `pip install peft`") from error
    from tiltlab.models.saved import load_adapters

    try:
        module = load_adapters(reference.module, Path(folder))
    except UserError as error:
        raise UserError(f"adapters {folder} do not fit model {reference.codec.name}: {error}") from error
    keep: dict[str, Any] = {name: getattr(reference, name) for name in ("batch_tokens", "scoring_tokens", "decoding")}
    return HFModel(module, reference.codec, **keep, adapter=False), HFModel(module, reference.codec, **keep)


def _names(paths: Sequence[Path]) -> list[str]:
    """What to call records: by their file, or by the folder that holds them; in full where that is not enough."""
    names = [path.parent.name if path.name == "records.jsonl" else path.stem for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _tokens(path: Path) -> list[dict[str, Any]]:
    """Token lines that `tiltlab evaluate` left beside records; none for a file alone."""
    with or_else("remove it, and the page goes without"):
        return read_shaped_lines(path / "tokens.jsonl", TokenLine, ended=False) if path.is_dir() else []


def _alone(path: Path) -> bool:
    """Whether the model of a folder was its own reference, so that its token lines are about itself."""
    return not (about_records(path).get("recipe") or {}).get("reference")


def _is_voted(path: Path) -> bool:
    """Whether what drew these records looks at answers and at nothing else, as far as their folder says."""
    arm = (about_records(path if path.is_dir() else path.parent).get("recipe") or {}).get("sampler")
    return isinstance(arm, dict) and "arm" in arm and nature_of(arm) == "answers"


def _both_or_none(base: list[Record] | None, tuned: list[Record] | None) -> tuple[list[Record], list[Record]] | None:
    return None if base is None or tuned is None else (base, tuned)
