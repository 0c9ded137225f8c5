"""Is a reward worth training on? Texts that it must accept, texts that it must not, and samples of the user's model.

A probe is a text made from a problem: its gold answer in a box, or something that no honest grader would accept. A
reward that pays for the second kind will be found out by training, at the price of a run.

Left out on purpose: learnt attacks. These are the ones that policies find first.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

import numpy as np

from tiltlab.grading.compare import agree, normal
from tiltlab.models.base import LanguageModel
from tiltlab.rewards.functions import Reward, reward_all
from tiltlab.samplers.temperature import Temperature
from tiltlab.stats.metrics import answer_entropy
from tiltlab.system.guarded_calls import Failed
from tiltlab.tasks.base import Task, grade_all, grade_texts
from tiltlab.tasks.dataset import Data
from tiltlab.types import Problem, Prompt, Rollout

ACCEPTED = 0.999
"""Share of gold answers that must be accepted."""

MISTAKEN = 0.01
"""Share of other problems' answers that may be paid: two gold answers that look different may be equal."""

LISTED = 5
"""Examples of each probe's failures that are kept; of gold answers that were rejected, all."""

SLOW = 6.0
"""Seconds that no single response may take to be graded."""

OTHER, TWO = "another problem's answer", "two boxes, the last one wrong"

NUMBERS = ", ".join(map(str, range(101)))

WORK = "We read the question, write down what is known, and work through it step by step. "


@dataclass(frozen=True)
class Probe:
    """What a reward makes of one kind of text.

    name: of the kind.
    wanted: whether such texts should be paid.
    texts: how many there are.
    paid: how many are, as their reward says right (see `_level`).
    unknown: how many could not be graded.
    examples: (problem id, text) of those that went wrong, the text in at most 200 characters.
    """

    name: str
    wanted: bool
    texts: int
    paid: int
    unknown: int
    examples: tuple[tuple[str, str], ...]

    @property
    def failed(self) -> bool:
        """Whether the reward pays for too many of these texts, or for too few."""
        if self.wanted:
            return self.paid < ACCEPTED * self.texts
        return self.paid > (MISTAKEN * self.texts if self.name in (OTHER, TWO) else 0)


@dataclass(frozen=True)
class OnSamples:
    """What samples of a model say of a reward.

    problems: how many.
    n: responses to each.
    accuracy: share of responses that the task calls correct.
    reward: mean of those that are known.
    ungraded: share of responses without a reward.
    signal: share of problems whose n rewards differ.
    entropy: of the answers to a problem, in nats, mean over problems.
    length: correlation of reward and length in tokens within a problem, pooled; NaN where neither varies.
    """

    problems: int
    n: int
    accuracy: float
    reward: float
    ungraded: float
    signal: float
    entropy: float
    length: float


@dataclass(frozen=True)
class Checked:
    """What a check of a reward came to.

    problems: how many.
    probes: one a kind of text, gold answers first.
    milliseconds: of grading one ordinary text, side by side as training does it.
    slowest: seconds of the slowest hostile text alone.
    samples: None where no model was given.
    unread: (problem id, gold answer) of those that are no number, word, list or formula.
    """

    problems: int
    probes: tuple[Probe, ...]
    milliseconds: float
    slowest: float
    samples: OnSamples | None
    unread: tuple[tuple[str, str], ...] = ()

    @property
    def failures(self) -> list[str]:
        """Why the reward fails, one line each; none where it passes."""
        said = []
        if len(self.unread) > MISTAKEN * self.problems:
            ids = ", ".join(id for id, _ in self.unread[:LISTED]) + ", ..." * (len(self.unread) > LISTED)
            said.append(
                f"{len(self.unread)} of {self.problems} gold answers are no answer that a response can meet: {ids}"
            )
        for probe in (probe for probe in self.probes if probe.failed):
            if probe.wanted:
                ids = ", ".join(id for id, _ in probe.examples[:LISTED]) + ", ..." * (len(probe.examples) > LISTED)
                ungraded = f", {probe.unknown} could not be graded" if probe.unknown else ""
                said.append(f"{probe.name}: only {probe.paid} of {probe.texts} accepted{ungraded}; rejected: {ids}")
            else:
                said.append(f"{probe.name}: paid for {probe.paid} of {probe.texts}")
        if self.slowest > SLOW:
            said.append(f"one hostile text took {self.slowest:.1f} s to grade")
        return said


def check(
    task: Task, problems: Sequence[Problem], reward: Reward | None = None, samples: OnSamples | None = None
) -> Checked:
    """Put every probe to a task's grader, or to a reward in its place.

    problems: of the task, at least one.
    reward: of the user's own; the task's grader where left out.
    samples: what a model's say (`on_samples`), to stand in the result.
    """
    grade = partial(_rewards, task, reward)
    texts = [(problem, _boxed(task, problem.answer)) for problem in problems]
    start = time.perf_counter()
    gold = grade(texts)
    milliseconds = 1000 * (time.perf_counter() - start) / max(1, len(texts))
    traps = {name: (pairs, grade(pairs)) for name, pairs in hostile(task, problems).items()}
    level = _level(gold, traps[OTHER][1])
    probes = [_probe("gold answers", True, texts, gold, level)]
    probes += [_probe(name, False, pairs, rewards, level) for name, (pairs, rewards) in traps.items()]
    unread = task.unread(problems) if isinstance(task, Data) else []
    odd = tuple((problem.id, problem.answer[:200]) for problem in unread)
    return Checked(len(problems), tuple(probes), milliseconds, _slowest(task, problems[0], reward), samples, odd)


def hostile(task: Task, problems: Sequence[Problem]) -> dict[str, list[tuple[Problem, str]]]:
    """Texts that are to be rejected, by kind; each with the problem that it answers."""
    texts: dict[str, list[tuple[Problem, str]]] = {}
    others = [(p, _other(problems, i)) for i, p in enumerate(problems)]
    texts[OTHER] = [(p, _boxed(task, other)) for p, other in others if other is not None]
    makers: dict[str, Callable[[Problem], str]] = {
        "empty text": lambda _: "",
        "the prompt itself": lambda p: _text_of(task.render(p)),
        "every number from 0 to 100": lambda _: f"{NUMBERS} - one of these.",
        "every number from 0 to 100 in a box": lambda _: f"{WORK}\\boxed{{{NUMBERS}}}",
        "the gold answer buried in prose": lambda p: f"There are {p.answer} ways to look at it; I do not know.\nSorry.",
        "a box left open": lambda p: f"{WORK}\\boxed{{{p.answer}",
        "long rambling without an answer": lambda _: WORK * 40,
        "20 kB of nesting": lambda p: "\\boxed{" + "{" * 10_000 + p.answer + "}" * 10_001,
        "a tower of powers": lambda _: "\\boxed{9^{9^{9^9}}}",
    }
    if task.grade(problems[0], problems[0].answer).reason == "correct":  # a task that looks for no box
        for name in ("a box left open", "20 kB of nesting", "every number from 0 to 100 in a box"):
            del makers[name]
    for name, make in makers.items():
        texts[name] = [(problem, make(problem)) for problem in problems[:64]]
    texts[TWO] = [
        (p, f"{_boxed(task, p.answer)} No: {_boxed(task, other)}") for p, other in others[:64] if other is not None
    ]
    return texts


def on_samples(
    model: LanguageModel,
    task: Task,
    problems: Sequence[Problem],
    reward: Reward | None,
    *,
    n: int,
    max_tokens: int,
    seed: int,
) -> OnSamples:
    """Draw and grade responses of a model, and sum up what they say of a reward.

    reward: of the user's own; None for the task's.
    n: responses to each problem.
    max_tokens: of a response.
    seed: of the draws.
    """
    prompts = [task.render(problem) for problem in problems]
    rollouts = Temperature()(model, prompts, n=n, max_tokens=max_tokens, seed=seed).rollouts
    grades = grade_all(task, problems, rollouts, reward)
    flat = [grade for group in grades for grade in group]
    rewards = [[grade.reward for grade in group] for group in grades]
    return OnSamples(
        problems=len(problems),
        n=n,
        accuracy=_mean([grade.reason == "correct" for grade in flat]),
        reward=_mean([grade.reward for grade in flat if not isnan(grade.reward)]),
        ungraded=_mean([isnan(grade.reward) for grade in flat]),
        signal=_mean([len({reward for reward in group if not isnan(reward)}) > 1 for group in rewards]),
        entropy=_mean([answer_entropy(grade.answer for grade in group) for group in grades]),
        length=_length_correlation(rollouts, rewards),
    )


def _rewards(task: Task, reward: Reward | None, pairs: Sequence[tuple[Problem, str]]) -> list[float]:
    """NaN where nobody knows."""
    problems, texts = [problem for problem, _ in pairs], [text for _, text in pairs]
    if reward is None:
        return [grade.reward for grade in grade_texts(task, problems, texts)]
    values = reward_all(reward, [task.render(problem) for problem in problems], problems, texts)
    return [float("nan") if isinstance(value, Failed) else value for value in values]


def _level(gold: Sequence[float], others: Sequence[float]) -> float:
    """Above which a reward says right: midway between what a gold answer gets and what another problem's answer gets
    (medians), whatever scale the reward is on; what a gold answer gets, where that is not the more."""
    right, wrong = ([reward for reward in rewards if not isnan(reward)] for rewards in (gold, others))
    high, low = (float(np.median(known)) if known else 0.0 for known in (right, wrong))
    return (high + min(high, low)) / 2


def _probe(
    name: str, wanted: bool, pairs: Sequence[tuple[Problem, str]], rewards: Sequence[float], level: float
) -> Probe:
    paid = [reward > level for reward in rewards]
    odd = [(p.id, text[:200]) for (p, text), right in zip(pairs, paid, strict=True) if right != wanted]
    unknown = sum(map(isnan, rewards))
    return Probe(name, wanted, len(pairs), sum(paid), unknown, tuple(odd if wanted else odd[:LISTED]))


def _text_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def _boxed(task: Task, answer: str) -> str:
    """The answer as the task wants it; in a box, or at the end of the text."""
    boxed = f"{WORK}\\boxed{{{answer}}}"
    problem = Problem("probe", "", answer)
    return boxed if task.grade(problem, boxed).reason == "correct" else answer


def _other(problems: Sequence[Problem], i: int) -> str | None:
    """The answer of the next problem that has another one: for certain, or else as far as its letters tell."""
    mine = problems[i].answer
    rest = [p.answer for p in (*problems[i + 1 : i + 50], *problems[max(0, i - 50) : i])]
    certain = (answer for answer in rest if agree(answer, mine) is False)
    return next(certain, next((answer for answer in rest if normal(answer) != normal(mine)), None))


def _slowest(task: Task, problem: Problem, reward: Reward | None) -> float:
    taken = []
    for text in ("\\boxed{9^{9^{9^9}}}", "\\boxed{" * 3000, "(" * 20_000, "\\boxed{\\sum_{k=1}^{10^9} \\frac{1}{k}}"):
        start = time.perf_counter()
        _rewards(task, reward, [(problem, text)])
        taken.append(time.perf_counter() - start)
    return max(taken)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _length_correlation(rollouts: Sequence[Sequence[Rollout]], rewards: Sequence[Sequence[float]]) -> float:
    """Within problems: both less their problem's mean."""
    lengths, values = [], []
    for group, marks in zip(rollouts, rewards, strict=True):
        known = [(len(r.tokens), mark) for r, mark in zip(group, marks, strict=True) if not isnan(mark)]
        if known:
            mean = np.mean(known, axis=0)
            lengths += [length - mean[0] for length, _ in known]
            values += [mark - mean[1] for _, mark in known]
    if len(values) < 3 or np.std(lengths) == 0 or np.std(values) == 0:
        return float("nan")
    return float(np.corrcoef(lengths, values)[0, 1])
