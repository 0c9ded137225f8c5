"""A task over an enumerable language: the reward of a response is looked up by its text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiltlab.types import Grade, Problem, Split


@dataclass(frozen=True)
class Lookup:
    """A task for enumerable languages. Every split holds the same problems.

    prompts: one problem each.
    rewards: by the text of the response; one that is not there (a prefix, say) gets 0.
    name: what people and folders call the task.
    """

    prompts: Sequence[str]
    rewards: Mapping[str, float]
    name: str = "lookup"

    def problems(self, split: Split) -> Sequence[Problem]:
        """One problem a prompt, whatever the split."""
        return [Problem(id=prompt, question=prompt, answer="") for prompt in self.prompts]

    def render(self, problem: Problem) -> str:
        """The prompt itself."""
        return problem.question

    def grade(self, problem: Problem, text: str) -> Grade:
        """The reward of the text; 1 or more counts as correct."""
        reward = self.rewards.get(text, 0.0)
        return Grade(reward, text, "correct" if reward >= 1 else "wrong")
