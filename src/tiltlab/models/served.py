"""A model that a server holds, as tiltlab's LanguageModel: it draws, and says how likely what it drew was.

It has no weights here, so it scores no response but its own, and whatever looks at logits step by step (beam, greedy,
top-p, populations) needs the weights. `tiltlab score` fills in what a server cannot say.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache, partial
from math import nan
from typing import Any, NoReturn

import torch

from tiltlab.errors import UserError
from tiltlab.models.base import TokenLogprobs, pad_tokens
from tiltlab.models.engine import Request, requests
from tiltlab.models.server import Address, Completion, Server
from tiltlab.types import Prompt, Rollout

AT_ONCE = 32
"""Requests that a server is asked at a time: it puts them side by side."""

WARM = 0.02
"""Nats: log-probabilities of one token that are nearer are the same but for rounding."""

PROBES = ("1, 2, 3,", "The", "7+5=", "so 1")
"""Beginnings of texts whose next token models find neither certain nor open."""

SEEDS = 2**31
"""Servers take no larger ones."""


@dataclass(frozen=True)
class ServedCodec:
    """What stands for a codec where the prompts are written elsewhere.

    name: of the model.
    told: what the first requests showed, one line each.
    """

    name: str
    told: tuple[str, ...] = ()

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """Nothing: the server knows how long a prompt is, and refuses one that it has no room for."""
        return []

    def notes(self, prompts: Sequence[Prompt]) -> list[str]:
        """What the first requests showed."""
        return list(self.told)


class ServedModel:
    """A LanguageModel on a server. Its tokens are numbered by their text, which is no token id of the model's.

    Raises UserError for a server that is not there or does not have the model.
    """

    def __init__(self, path: str) -> None:
        self.address = Address.read(path)
        self._server = Server(self.address)
        names = self._server.models()
        if names and self.address.name not in names:
            raise UserError(
                f"server {self.address.url} has no model {self.address.name}; it has {', '.join(names[:5])}"
            )
        digest = hashlib.sha256(path.encode()).digest()
        self.version = -1 - int.from_bytes(digest[:6], "big")  # of nobody else's rollouts
        self.told = _examined(self._server)
        self.codec = ServedCodec(self.address.name, self.told.notes)
        self.tell: Callable[[int], None] = lambda _: None
        """Told of each response how many tokens it has, as it comes."""
        self._numbers: dict[str, int] = {}

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """Raises UserError: a server does not say."""
        self._refuse("token ids")

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float = 1.0,
        max_tokens: int,
        seed: int,
        ignore_eos: bool = False,
    ) -> list[list[Rollout]]:
        """As the protocol says (`LanguageModel.generate`), one request a response, AT_ONCE at a time.

        The same seed gives the same response as far as the server keeps its word on seeds.
        """
        if ignore_eos:
            self._refuse("responses of a fixed length")
        wanted = requests([list(repr(prompt).encode()) for prompt in prompts], n, max_tokens, seed)
        rows = [(prompts[i // n], request) for i, request in enumerate(wanted)]
        drawn: list[Rollout | None] = [None] * len(rows)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            waiting = {
                pool.submit(self._server.complete, prompt, _settings(request, temperature)): i
                for i, (prompt, request) in enumerate(rows)
            }
            try:
                for done in as_completed(waiting):
                    rollout = drawn[waiting[done]] = self._rollout(done.result(), temperature)
                    self.tell(len(rollout.tokens))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        flat = [rollout for rollout in drawn if rollout is not None]
        return [flat[i : i + n] for i in range(0, len(flat), n)]

    def logprobs(self, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]]) -> TokenLogprobs:
        """What the server said of its own responses; NaN where that is not their log-probability at temperature 1.
        The entropies are not known: 0.

        Raises UserError for responses that it did not draw.
        """
        if any(rollout.version != self.version for group in rollouts for rollout in group):
            self._refuse("the log-probability of responses that it did not draw")
        tokens_PGT, mask_PGT = pad_tokens(rollouts)
        token_PGT = torch.zeros(tokens_PGT.shape)
        token_PGT[mask_PGT] = torch.tensor([logp for group in rollouts for r in group for logp in r.logprobs])
        return TokenLogprobs(token_PGT, mask_PGT, torch.zeros_like(token_PGT))

    def decoder(self, prompts: Sequence[Prompt], *, n: int, max_tokens: int) -> NoReturn:
        """Raises UserError: a server gives no logits step by step."""
        self._refuse("logits step by step, which this sampler needs")

    def capacity(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """As many as are asked for: the server queues them."""
        return 1 << 20

    def rollouts(self, responses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[Rollout]:
        """Raises UserError: it cannot tell the text of tokens."""
        self._refuse("the text of tokens")

    def fingerprint(self) -> str:
        """A hash of the address: nobody can look at the weights."""
        return hashlib.sha256(repr(self.address).encode()).hexdigest()

    def _rollout(self, said: Completion, temperature: float) -> Rollout:
        complete = said.finish == "stop"
        known = self.told.warm or temperature == 1
        if complete and not _has_end(said):  # the end is one token more, and nobody says how likely it was
            tokens, logprobs = (*said.tokens, ""), (*said.logprobs, nan)
        else:
            tokens, logprobs = said.tokens, said.logprobs if known else (nan,) * len(said.tokens)
        numbers = tuple(self._numbers.setdefault(token, len(self._numbers)) for token in tokens)
        return Rollout(numbers, said.text, complete, logprobs, self.version)

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(
            f"server {self.address.url} does not give {what}; name the model's weights, or draw with temperature, "
            "best of n or majority and have `tiltlab score` fill in the rest"
        )


@lru_cache(maxsize=2)
def served_model(path: str) -> ServedModel:
    """The model at an address, looked at once a process. Raises what `ServedModel` raises."""
    return ServedModel(path)


@dataclass(frozen=True)
class Examined:
    """What the first requests showed of a server.

    warm: log-probabilities are those at temperature 1, whatever the draw's.
    notes: what there is to say, one line each.
    """

    warm: bool
    notes: tuple[str, ...]


def _examined(server: Server) -> Examined:
    """Ask for a token at temperature 1 and colder, and for a short response: what they tell is told."""
    name, notes = f"model {server.address.name}", []
    warm = next((known for known in map(partial(_is_warm, server), range(24)) if known is not None), False)
    if not warm:
        notes.append(
            f"{name}: the server gives log-probabilities after the temperature, not those at temperature 1; where a "
            "draw's temperature is another they are left out, and `tiltlab score` fills them in"
        )
    ends = server.complete("The end.", {"max_tokens": 64, "seed": 1, "temperature": 0.2}, attempts=2)
    if ends.finish == "stop" and not _has_end(ends):
        notes.append(
            f"{name}: the server does not say how likely the end of a response was; log p of whole responses is left "
            "out, and `tiltlab score` fills it in"
        )
    return Examined(warm, tuple(notes))


def _is_warm(server: Server, seed: int) -> bool | None:
    """Whether a token has the same log-probability in a draw at another temperature; None where the draws differ."""
    settings: dict[str, Any] = {"max_tokens": 1, "seed": seed}
    prompt = PROBES[seed % len(PROBES)]
    one = server.complete(prompt, settings | {"temperature": 1.0}, attempts=2)
    cold = server.complete(prompt, settings | {"temperature": 0.7}, attempts=2)
    if not one.tokens or one.tokens[:1] != cold.tokens[:1] or one.logprobs[0] > -1e-3:
        return None
    return abs(one.logprobs[0] - cold.logprobs[0]) < WARM


def _has_end(said: Completion) -> bool:
    """Whether the tokens of a response that ended hold the one that ended it: it stands in none of its text."""
    last = said.tokens[-1] if said.tokens else None
    return last is not None and (last == "" or not said.text.endswith(last))


def _settings(request: Request, temperature: float) -> dict[str, Any]:
    return {"max_tokens": request.limit, "temperature": temperature, "seed": request.own_seed % SEEDS}
