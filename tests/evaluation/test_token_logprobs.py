"""Tokens' figures against a plain forward pass, and their text against the response's."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.models import tiny
from tiltlab.evaluation.token_logprobs import COUNTED, SPELLED, spell, token_lines, told_by
from tiltlab.models.table import TableLanguage
from tiltlab.types import Problem


def test_logps_and_ranks_are_those_of_a_plain_forward() -> None:
    """Prompts and responses of all lengths, so that rows leave the batch at different steps."""
    model = tiny.model()
    prompts = ["a", "bcd", "efgha", "hg"]
    drawn = [group[0] for group in model.generate(prompts, n=1, max_tokens=12, seed=3)]
    cuts = zip(drawn, (12, 3, 7, 7), strict=True)
    rollouts = [replace(r, tokens=r.tokens[:cut], logprobs=r.logprobs[:cut]) for r, cut in cuts]
    for prompt, rollout, (logps, ranks) in zip(prompts, rollouts, told_by(model, prompts, rollouts), strict=True):
        ids = model.codec.encode(prompt) + list(rollout.tokens)
        with torch.no_grad():
            logits = model.module(torch.tensor([ids])).logits[0].double()
        start = len(ids) - len(rollout.tokens) - 1
        for step, token in enumerate(rollout.tokens):
            distribution = logits[start + step].log_softmax(-1)
            assert logps[step] == pytest.approx(distribution[token].item(), abs=1e-4)
            assert ranks[step] == distribution.argsort(descending=True).tolist().index(token)


def test_on_a_language_that_can_be_enumerated_they_sum_to_log_p() -> None:
    language = TableLanguage.random(0, prompts=["x", "y"])
    rollouts = [group[0] for group in language.generate(language.prompts, n=1, max_tokens=6, seed=0)]
    told = told_by(language, language.prompts, rollouts)
    exact = language.logprobs(language.prompts, [[rollout] for rollout in rollouts]).total_PG[:, 0].tolist()
    assert [sum(logp) for logp, _ in told] == pytest.approx(exact, abs=1e-5)


def test_pieces_join_to_the_text() -> None:
    model = tiny.model()
    for group in model.generate(["a", "bc"], n=4, max_tokens=10, seed=0):
        for rollout in group:
            pieces = spell(model, rollout)
            assert len(pieces) == len(rollout.tokens)
            assert "".join(pieces) == rollout.text
            assert not rollout.complete or pieces[-1] == ""


def test_half_a_character_waits_for_its_other_half() -> None:
    half, whole = "caf\N{REPLACEMENT CHARACTER}", "café!"

    class Bytes:
        def rollouts(self, responses: list[tuple[tuple[int, ...], tuple[float, ...]]]) -> list[object]:
            texts = ["caf", half, "café", whole]
            return [replace(rollout, text=texts[len(tokens) - 1]) for tokens, _ in responses]

    rollout = replace(tiny.model().generate(["a"], n=1, max_tokens=4, seed=0)[0][0], text=whole)
    rollout = replace(rollout, tokens=(1, 2, 3, 4), logprobs=(0.0,) * 4)
    assert spell(Bytes(), rollout) == ("caf", "", "é", "!")  # type: ignore[arg-type]


def test_only_so_many_are_kept() -> None:
    model = tiny.model()
    prompts = ["abcdefgh"[i % 8] for i in range(40)]
    problems = [Problem(str(i), prompt, "") for i, prompt in enumerate(prompts)]
    lines: list[dict[str, Any]] = []
    for seed in range(2):
        first = [group[0] for group in model.generate(prompts, n=1, max_tokens=4, seed=seed)]
        lines += token_lines(model, problems, prompts, first, told=len(lines))
    assert len(lines) == COUNTED
    assert [line["pieces"] is not None for line in lines] == [i < SPELLED for i in range(COUNTED)]
    assert lines[5]["logp"] == pytest.approx(lines[5]["ref_logp"], abs=1e-4)
