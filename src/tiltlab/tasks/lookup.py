"""A task over an enumerable language: the reward of a response is looked up by its text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiltlab.types import Grade, Problem, Split


@dataclass(frozen=True)
class Lookup:
    """Every split holds the same problems, one a prompt; texts that are not in `rewards` (prefixes, say) get 0."""

    prompts: Sequence[str]
    rewards: Mapping[str, float]
    name: str = "lookup"

    def problems(self, split: Split) -> Sequence[Problem]:
        return [Problem(id=prompt, question=prompt, answer="") for prompt in self.prompts]

    def render(self, problem: Problem) -> str:
        return problem.question

    def grade(self, problem: Problem, text: str) -> Grade:
        reward = self.rewards.get(text, 0.0)
        return Grade(reward, text, "correct" if reward >= 1 else "wrong")
