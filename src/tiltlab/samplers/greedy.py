"""The likeliest token, again and again."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiltlab.models.base import LanguageModel
from tiltlab.samplers.base import GradeFn, Info, Samples, decoded_here, in_turns, stopwatch
from tiltlab.types import Prompt


@dataclass(frozen=True)
class Greedy:
    """Targets, exactly, the limit of temperature 0: the response whose every token is the likeliest next one (of two
    alike the one of the smaller number), with all mass on it. It is drawn once a prompt, and given n times.

    That is *not* the likeliest response, which may begin with a token that is not the likeliest: `Beam` searches for
    it. `seed` changes nothing.
    """

    def drawn(self, n: int) -> int:
        """One, however many responses are asked for."""
        return 1

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[Prompt],
        *,
        n: int,
        max_tokens: int,
        seed: int,
        grade_fn: GradeFn | None = None,
    ) -> Samples:
        """The same response n times for each prompt (see `Sampler`)."""

        def run(some: Sequence[Prompt], _: int) -> Samples:
            return _followed(model, some, n, max_tokens)

        return in_turns(run, prompts, model.capacity(prompts, max_tokens))


def _followed(model: LanguageModel, prompts: Sequence[Prompt], n: int, max_tokens: int) -> Samples:
    with stopwatch() as seconds:
        decoder = model.decoder(prompts, n=1, max_tokens=max_tokens)
        responses: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
        going = list(range(len(prompts)))
        for _ in range(max_tokens):
            logp_NV = decoder.next_logits().log_softmax(-1)
            token_N = logp_NV.argmax(-1)
            logp_N = logp_NV.gather(-1, token_N[:, None])[:, 0]
            for row, token, logp in zip(going, token_N.tolist(), logp_N.tolist(), strict=True):
                responses[row][0].append(token)
                responses[row][1].append(logp)
            decoder.append(token_N)
            stay = (~decoder.ends_V[token_N]).nonzero()[:, 0]
            if len(stay) == 0:
                break
            if len(stay) < len(going):
                decoder.select(stay)
                going = [going[i] for i in stay.tolist()]
        groups = [[rollout] * n for rollout in model.rollouts(responses)]
        info = Info(
            sum(len(tokens) for tokens, _ in responses), seconds=seconds(), warnings=decoded_here(model, "Greedy")
        )
    return Samples(groups, info)
