"""Which problem a prompt asks: by what it says, however it is dressed. Pure.

A prompt is taken apart into words and signs. A problem is asked where its question stands in the prompt, whole, with
whatever a chat template, few-shot examples or instructions put around it; of several questions the last one counts, and
of those that end at one place the longest.

Left out on purpose: questions that are nearly alike. Half a match would grade a response by another problem's answer.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

Words = tuple[str, ...]

KEY = 4
"""Words by which questions are looked up, at most."""

SHORT = 3
"""A question of fewer words is known only where the prompt says nothing else."""


def words_of(text: str) -> Words:
    """A text as words and signs: compatibility forms are unified, and spaces and what is invisible left out."""
    plain = unicodedata.normalize("NFKC", text)
    return tuple(re.findall(r"[^\W_]+|[^\w\s]|_", "".join(c for c in plain if unicodedata.category(c) != "Cf")))


class Questions:
    """The questions of some problems, to find prompts among.

    texts: by the problem's id, all that may be said where it is asked.
    """

    def __init__(self, texts: Mapping[str, Iterable[str]]) -> None:
        self._asking: dict[Words, dict[str, None]] = {}
        self._by_key: dict[Words, list[Words]] = {}
        for problem, said in texts.items():
            for words in dict.fromkeys(map(words_of, said)):
                if words:
                    self._asking.setdefault(words, {})[problem] = None
        for words in self._asking:
            self._by_key.setdefault(words[:KEY], []).append(words)

    def asked(self, prompt: str) -> Sequence[str]:
        """The ids of the problems that a prompt asks: one, none, or several that ask the same."""
        words = words_of(prompt)
        if words in self._asking:
            return list(self._asking[words])
        best: tuple[int, int] | None = None
        found: Words = ()
        for start in range(len(words)):
            for question in self._beginning(words, start):
                place = (start + len(question), len(question))
                if len(question) >= SHORT and (best is None or place > best):
                    best, found = place, question
        return list(self._asking[found]) if found else []

    def _beginning(self, words: Words, start: int) -> Iterable[Words]:
        for length in range(1, KEY + 1):
            for question in self._by_key.get(words[start : start + length], ()):
                if words[start : start + len(question)] == question:
                    yield question
