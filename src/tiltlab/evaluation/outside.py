"""Responses of another program -> records: matched to problems, and graded.

Left out on purpose: what their file does not say is not made up. It is told, with what follows from it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path

from tiltlab.datasets.cells import chat_text
from tiltlab.errors import UserError, shown
from tiltlab.records.matching import Questions
from tiltlab.records.opening import Reading, Say, Step, read_samples
from tiltlab.records.sample import Sample
from tiltlab.storage.files import shortened
from tiltlab.storage.incoming import written_out
from tiltlab.tasks.base import Task, grade_texts
from tiltlab.types import Grade, Problem, Record, Split

ALIKE = 0.5
"""A grade of a file's above this counts as right."""

MEANT = ("acc", "correct", "match")
"""Of several grades, the first whose name holds one of these is about the answer."""


@dataclass(frozen=True)
class Imported:
    """Records, and what they were made of.

    records: by problem, in the order that problems came in.
    samples: as the file has them, a sample a record.
    problems: by id; without a gold answer where no task is known.
    split: of the task, that they are of.
    """

    records: list[Record]
    samples: list[Sample]
    problems: dict[str, Problem]
    split: Split = "test"


@dataclass(frozen=True)
class Asked:
    """How files of other programs are to be taken.

    reading: how to read them.
    task: whose problems they answer; None: each prompt is a problem of its own.
    grades: "ours", by the task; "theirs", the file's own, or "theirs:NAME"; None: ours where a task is known.
    step: of training, of dumps that hold several; None: the base's first and the tuned model's last.
    say: told what was read, matched and graded, and what the files lack.
    """

    reading: Reading = field(default_factory=Reading)
    task: Task | None = None
    grades: str | None = None
    step: int | None = None
    say: Say = lambda _: None


def read_outside(path: Path, asked: Asked, step: Step) -> Imported:
    """Records from a file or folder of another program. Raises UserError, naming file and row, for one that cannot be
    used."""
    samples = read_samples(path, asked.reading, step, asked.say)
    return imported(samples, str(path), asked.task, asked.grades, asked.say)


def imported(samples: Sequence[Sample], named: str, task: Task | None, grades: str | None, say: Say) -> Imported:
    """Records of these responses.

    named: what messages call where they come from.
    task: whose problems they answer; None: each prompt is a problem of its own.
    grades: "ours", by the task; "theirs", the file's own, or "theirs:NAME"; None: ours where a task is known.
    say: told what was matched, what grades differ, and what the file lacks.

    Raises UserError where no response could be used, and for grades that nobody has.
    """
    held = [sample for sample in samples if sample.text is not None]
    if not held:
        raise UserError(
            f"{named} holds no response" + (f" (the first row without one: {samples[0].where})" if samples else "")
        )
    if len(held) < len(samples):
        lost = next(sample.where for sample in samples if sample.text is None)
        say(f"{named}: {len(samples) - len(held)} rows hold no response and are left out (the first: {lost})")
    if task and not any(sample.text or sample.prompt for sample in held):
        raise UserError(
            f"{named} holds token ids and no text to match and grade: name its tokenizer by --tokenizer, or leave the "
            "task out and take the file's own grades"
        )
    split, found = _matched(held, task, named, say) if task else ("test", _own(held))
    pairs = _in_order(found)
    told = _grades(pairs, task, grades, named, say)
    ended = _ended([sample for sample, _ in pairs], told, named, say)
    _tell_lacks([sample for sample, _ in pairs], named, say, answers=any(grade.answer is not None for grade in told))
    places = Counter[tuple[str, str]]()
    records = []
    for (sample, problem), complete, grade in zip(pairs, ended, told, strict=True):
        of = task.name if task else sample.task or "prompts"
        records.append(_record(sample, of, problem, places[of, problem.id], complete, grade))
        places[of, problem.id] += 1
    return Imported(records, [sample for sample, _ in pairs], {problem.id: problem for _, problem in pairs}, split)


def _record(sample: Sample, task: str, problem: Problem, number: int, complete: bool, grade: Grade) -> Record:
    return Record(
        task=task,
        problem=problem.id,
        sample=number,
        text=sample.text or "",
        answer=grade.answer,
        reward=grade.reward,
        reason=grade.reason,
        tokens=sample.tokens,
        complete=complete,
        logp=sample.logp,
        ref_logp=sample.ref_logp,
    )


Pairs = list[tuple[Sample, Problem]]


def _own(samples: Sequence[Sample]) -> Pairs:
    """Each distinct prompt is a problem, by its id in the file or else by what it says."""
    pairs = []
    for sample in samples:
        said = sample.problem or " ".join(sample.prompt.split())
        name = shortened(written_out(said))
        if not name:
            raise UserError(f"{sample.where} names no problem: it has neither an id nor a prompt")
        pairs.append((sample, Problem(name, sample.prompt or name, sample.gold)))
    return pairs


_SPLITS: tuple[Split, ...] = ("test", "train", "validation")


def _matched(samples: Sequence[Sample], task: Task, named: str, say: Say) -> tuple[Split, Pairs]:
    """Those that answer a problem of the task, by the split that has most of them, the test split rather than another,
    and which that is."""
    known: Sequence[Problem] = ()
    best: tuple[Split, Pairs, int] = ("test", [], 0)
    for split in _SPLITS:
        try:
            problems = task.problems(split)
        except UserError:
            if split == "test":
                raise
            continue
        known = known or problems
        pairs = _among(samples, problems, task)
        best = max(best, (split, pairs, len(problems)), key=lambda one: len(one[1]))
        if 2 * len(pairs) >= len(samples):
            break
    split, pairs, of = best
    if pairs:
        _tell_matched(pairs, samples, of, f"{task.name}'s {split} split", named, say)
        return split, pairs
    first = samples[0]
    said = shown(first.prompt or first.problem)
    raise UserError(
        f"{named}: none of {len(samples)} responses answers a problem of task {task.name} ({first.where} is asked "
        f"{said}; the task asks {shown(known[0].question) if known else 'nothing'}); name the task that they are of"
    )


def _among(samples: Sequence[Sample], problems: Sequence[Problem], task: Task) -> Pairs:
    by_id = {problem.id: problem for problem in problems}
    questions = Questions({problem.id: (problem.question, _rendered(task, problem)) for problem in problems})
    asked: dict[str, Sequence[str]] = {}
    pairs = []
    for sample in samples:
        if sample.prompt and sample.prompt not in asked:
            asked[sample.prompt] = questions.asked(sample.prompt)
        names = asked.get(sample.prompt, ())
        if len(names) > 1:  # several ask the same: the one that the file's id or gold answer means
            names = [n for n in names if n == sample.problem] or [n for n in names if by_id[n].answer == sample.gold]
        if not names and not sample.prompt and sample.problem in by_id:
            names = [sample.problem]
        if len(names) == 1:
            pairs.append((sample, by_id[names[0]]))
    return pairs


def _rendered(task: Task, problem: Problem) -> str:
    prompt = task.render(problem)
    return prompt if isinstance(prompt, str) else chat_text(prompt)


def _tell_matched(pairs: Pairs, samples: Sequence[Sample], of: int, split: str, named: str, say: Say) -> None:
    used = {id(sample) for sample, _ in pairs}
    lost = [sample.where for sample in samples if id(sample) not in used]
    told = f"; the others are left out (the first: {lost[0]})" if lost else ""
    count = len({problem.id for _, problem in pairs})
    say(f"{named}: {len(pairs)} of {len(samples)} responses answer {count} of {of} problems of {split}{told}")


def _in_order(pairs: Pairs) -> Pairs:
    """Those to one problem beside each other, by their number where they have one."""
    first: dict[tuple[str, str], int] = {}
    for i, (sample, problem) in enumerate(pairs):
        first.setdefault((sample.task, problem.id), i)
    return sorted(pairs, key=lambda pair: (first[pair[0].task, pair[1].id], pair[0].number or 0))


def _ended(samples: Sequence[Sample], grades: Sequence[Grade], named: str, say: Say) -> list[bool]:
    """Whether each came to its end; where nobody says, whether it is shorter than the longest.

    A limit is one of tokens: among responses whose characters alone can be counted, as many of them are no sign of a
    limit where an answer was read.
    """
    if all(sample.complete is not None for sample in samples):
        return [bool(sample.complete) for sample in samples]
    counted = all(sample.tokens for sample in samples)
    lengths = [sample.tokens if counted else len(sample.text or "") for sample in samples]
    longest = max(lengths) if len(set(lengths)) > 1 else max(lengths) + 1
    most = f"{max(lengths)} tokens)" if counted else f"{max(lengths)} characters), or with an answer"
    say(
        f"{named}: no finish reason, so whether responses ended is not known: taken as ended where shorter than the "
        f"longest ({most}"
    )
    return [
        length < longest or (not counted and grade.reason != "no_answer")
        if sample.complete is None
        else sample.complete
        for sample, grade, length in zip(samples, grades, lengths, strict=True)
    ]


def _grades(pairs: Pairs, task: Task | None, grades: str | None, named: str, say: Say) -> list[Grade]:
    if grades not in (None, "ours") and grades.partition(":")[0] != "theirs":
        raise UserError(f"--grades cannot be {shown(grades)}; it is ours, theirs, or theirs:NAME")
    samples = [sample for sample, _ in pairs]
    if grades == "ours" and task is None:
        raise UserError("--grades ours needs a task that grades: add --task, --data or both")
    if task is None or (grades or "").startswith("theirs"):
        name = _chosen(samples, (grades or "").partition(":")[2], named)
        say(f"{named}: grades are the file's own ({name})")
        return [_theirs(sample, name) for sample in samples]
    ours = grade_texts(task, [problem for _, problem in pairs], [sample.text or "" for sample in samples])
    if any(sample.grades for sample in samples):
        _tell_differences(samples, ours, named, say)
    return ours


def _chosen(samples: Sequence[Sample], wanted: str, named: str) -> str:
    """The name of the grade that counts. Raises UserError where there is none, or nobody says which."""
    names = list(dict.fromkeys(name for sample in samples for name in sample.grades))
    if not names:
        raise UserError(f"{named} has no grades of its own; name the task that grades by --task, --data or both")
    if wanted and wanted not in names:
        raise UserError(f"{named} has no grade {shown(wanted)}; it has {', '.join(names)[:300]}")
    meant = [name for name in names if any(part in name.lower() for part in MEANT)]
    if not wanted and len(names) > 1 and not meant:
        raise UserError(f"{named} has several grades ({', '.join(names)[:300]}); name one: --grades theirs:{names[0]}")
    return wanted or (names[0] if len(names) == 1 else meant[0])


def _theirs(sample: Sample, name: str) -> Grade:
    value = sample.grades.get(name, float("nan"))
    if isnan(value):
        return Grade(value, sample.answer, "error")
    if value > ALIKE:
        return Grade(value, sample.answer, "correct")
    return Grade(value, sample.answer, "no_answer" if sample.unread else "wrong")


def _tell_differences(samples: Sequence[Sample], ours: Sequence[Grade], named: str, say: Say) -> None:
    try:
        name = _chosen(samples, "", named)
    except UserError:  # several, and nobody has to say which
        return
    more = [
        s.where for s, g in zip(samples, ours, strict=True) if g.reason == "correct" and s.grades.get(name, 1) <= ALIKE
    ]
    less = [
        s.where for s, g in zip(samples, ours, strict=True) if g.reason != "correct" and s.grades.get(name, 0) > ALIKE
    ]
    if not more and not less:
        say(f"{named}: graded again, as the file does ({name})")
        return
    say(
        f"{named}: graded again; {len(more) + len(less)} of {len(samples)} grades differ from the file's ({name}): "
        f"{len(more)} are right only here, {len(less)} only there (the first: {(more + less)[0]})"
    )


def _tell_lacks(samples: Sequence[Sample], named: str, say: Say, *, answers: bool) -> None:
    unscored = sum(isnan(sample.logp) for sample in samples)
    if unscored:
        which = (
            "no log-probabilities"
            if unscored == len(samples)
            else f"{unscored} of {len(samples)} have no log-probability"
        )
        say(f"{named}: {which}, so how likely responses are is not known; `tiltlab score` fills them in")
    if not any(sample.tokens for sample in samples):
        say(f"{named}: no lengths, so nothing is said of the length of responses")
    if not answers:
        say(f"{named}: no answers were read, so voting cannot be tried and form is not told from wrong answers")
