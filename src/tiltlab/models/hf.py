"""Any causal language model of transformers, as tiltlab's LanguageModel and Policy.

What it saves, for every such model, on CPU and GPU: a prompt is read once for all its responses; responses that are
finished leave the batch; the vocabulary head sees only positions that hold a response token; responses of like length
are scored together, so that little is padding; and the update's own forward serves as log pi, so that nothing is scored
twice.

Left out on purpose: models whose cache is not made of keys and values (Mamba, RWKV), encoder-decoders, several GPUs for
one model. An HFModel checks itself when it is made and refuses a model that it would get wrong.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tiltlab.models.base import TokenLogprobs, pad_tokens
from tiltlab.models.batching import half, like_lengths, lots, slices
from tiltlab.models.codec import Codec
from tiltlab.models.context import Context, read, read_prompts, read_whole
from tiltlab.models.decoding import decode, noise
from tiltlab.models.engine import Drawn, Request, grouped, requests
from tiltlab.models.fitness import checkpoint_layers, quiet_dropout, refusing, require_right_logprobs
from tiltlab.models.head import Head
from tiltlab.models.saved import restore_adapters, restore_module
from tiltlab.models.shelf import Shelf
from tiltlab.models.sizes import ON_CPU, Sizes
from tiltlab.models.slot_decoding import Decoding, slot_decoder
from tiltlab.models.stepping import Stepper
from tiltlab.models.vocabulary import chosen_logprobs
from tiltlab.models.weights import merged, take, tensors_of
from tiltlab.system.devices import free_bytes, unless_memory_runs_out
from tiltlab.types import Prompt, Rollout


class HFModel:
    """A transformers causal LM with its codec. Dropout is off, always: log p must be a function of the weights.

    module: a causal LM of transformers, or one that peft has put adapters on.
    codec: its tokenizer and limits.
    batch_tokens: how many tokens (rows x their longest possible length) may be held while drawing.
    scoring_tokens: how many one forward without gradients may hold while scoring, which takes other memory than drawing
        does; the same number where left out. Policy and reference must have one between them: where their rows are
        divided alike, equal weights give equal log-probabilities to the last bit.
    checkpointing: recompute activations in the backward pass; saves memory, costs a forward and the shared prompt.
    decoding: "plain", or "slots" (slot_decoding.py), or "auto": slots on a GPU for models that allow them.
    adapter: of a module that carries a LoRA adapter, whether this view uses it. The reference of a LoRA policy is the
        same module with the adapter off; adapters are never merged into the weights.

    Raises UserError for a model whose log-probabilities come out differently than from its own plain forward, and where
    slots are asked for by name and cannot be had.
    """

    def __init__(
        self,
        module: Any,
        codec: Codec,
        *,
        batch_tokens: int = ON_CPU,
        scoring_tokens: int | None = None,
        checkpointing: bool = False,
        decoding: Decoding = "auto",
        adapter: bool = True,
    ) -> None:
        self.module, self.codec = module, codec
        self.batch_tokens, self.scoring_tokens = batch_tokens, scoring_tokens or batch_tokens
        self.checkpointing, self.adapter = checkpointing, adapter
        self._version = 0
        self.tell: Callable[[int], None] = lambda _: None
        """Told at each step of decoding how many tokens it drew: for whoever shows how far drawing is."""
        self.ran_out: Callable[[int], None] = lambda _: None
        """Told what `batch_tokens` is now, after memory ran out while drawing and less at a time was drawn instead."""
        self.shelf: Shelf | None = None
        """Where its weights are while it is not scoring; None where they stay on their device."""
        quiet_dropout(module)
        base = module.get_base_model() if hasattr(module, "get_base_model") else module
        with refusing(codec.name, base):
            self._body, self._config, self._head = base.base_model, base.config, Head(base)
            if checkpointing:
                checkpoint_layers(base)
            require_right_logprobs(self, base)
        self.decoding, self._slots = decoding, slot_decoder(self, base, decoding)

    # LanguageModel

    def encode(self, prompt: Prompt, max_tokens: int = 0) -> list[int]:
        """As the protocol says (`LanguageModel.encode`)."""
        return self.codec.encode(prompt, max_tokens)

    @property
    def version(self) -> int:
        """How many updates this view was told of."""
        return self._version

    @torch.no_grad()
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
        """As the protocol says (`LanguageModel.generate`), `batch_tokens` at a time.

        Raises UserError for a prompt that cannot be encoded or leaves no room for max_tokens.
        """
        ids_P = [self.encode(prompt, max_tokens) for prompt in prompts]
        rows = requests(ids_P, n, max_tokens, seed)
        drawn_N = self.draw(rows, temperature, ignore_eos=ignore_eos)
        return grouped(self, drawn_N, n, self._version, ignore_eos=ignore_eos)

    @torch.no_grad()
    def draw(self, requests_N: Sequence[Request], temperature: float, *, ignore_eos: bool) -> list[Drawn]:
        """As the protocol says (`Engine.draw`), `batch_tokens` at a time; rows with like limits side by side."""
        held = self.batch_tokens
        with self._ready():
            in_slots = self._slots is not None
            drawn_N = (self._draw_in_slots if in_slots else self._draw_in_lots)(requests_N, temperature, ignore_eos)
        if self.batch_tokens < held:
            self.ran_out(self.batch_tokens)
        return drawn_N

    def _draw_in_slots(self, requests_N: Sequence[Request], temperature: float, ignore_eos: bool) -> list[Drawn]:
        assert self._slots is not None
        wanted = (requests_N, temperature, self._ends() & (not ignore_eos))
        while (drawn_N := unless_memory_runs_out(partial(self._slots.draw, *wanted, self.batch_tokens))) is None:
            self.batch_tokens = half(requests_N, self.batch_tokens)
        return drawn_N

    def _draw_in_lots(self, requests_N: Sequence[Request], temperature: float, ignore_eos: bool) -> list[Drawn]:
        drawn: dict[int, Drawn] = {}
        left = deque(lots(requests_N, range(len(requests_N)), self.batch_tokens))
        while left:
            lot = [requests_N[row] for row in left[0]]
            found = unless_memory_runs_out(partial(self._draw, lot, temperature, ignore_eos))
            if found is None:
                self.batch_tokens = half(lot, self.batch_tokens)
                left = deque(lots(requests_N, [row for rows in left for row in rows], self.batch_tokens))
            else:
                drawn |= zip(left.popleft(), found, strict=True)
        return [drawn[row] for row in range(len(requests_N))]

    def _draw(self, requests_N: Sequence[Request], temperature: float, ignore_eos: bool) -> list[Drawn]:
        places = {ids: place for place, ids in enumerate(dict.fromkeys(request.ids for request in requests_N))}
        context = self._read_prompts(list(places), growing=True)
        context = context.select(self._indices([places[request.ids] for request in requests_N]))
        noise_NT = noise(requests_N).to(self.device)
        ends_V = self._ends() & (not ignore_eos)
        return decode(self._head, self._read_on, context, noise_NT, temperature, ends_V, self.tell)

    @torch.no_grad()
    def decoder(self, prompts: Sequence[Prompt], *, n: int, max_tokens: int) -> Stepper:
        """As the protocol says (`LanguageModel.decoder`). All P n rows at once: see `capacity`.

        Raises UserError for a prompt that cannot be encoded or leaves no room for max_tokens.
        """
        ids_P = [self.encode(prompt, max_tokens) for prompt in prompts]
        owner_N = [p for p in range(len(ids_P)) for _ in range(n)]
        with self._ready():
            context = self._read_prompts(ids_P, growing=True).select(self._indices(owner_N))
        last_N = [ids_P[p][-1] for p in owner_N]
        bare = self._has_adapter and not self.adapter
        read_on = self._read_on_without_adapter if bare else self._read_on
        return Stepper(read_on, self._head, context, last_N, self._ends(), max_tokens, self.tell)

    def capacity(self, prompts: Sequence[Prompt], tokens: int) -> int:
        """Rows, of the longest of these prompts and `tokens` more, that `batch_tokens` holds; at least 1."""
        longest = max(len(self.codec.encode(prompt)) for prompt in prompts)
        return max(1, self.batch_tokens // (longest + tokens))

    def rollouts(self, responses: Sequence[tuple[Sequence[int], Sequence[float]]]) -> list[Rollout]:
        """As the protocol says (`LanguageModel.rollouts`); complete where the last token is one of `codec.end_ids`."""
        ends = set(self.codec.end_ids)
        texts = self.codec.decode([tokens for tokens, _ in responses])
        return [
            Rollout(tuple(tokens), text, bool(tokens) and tokens[-1] in ends, tuple(logps), self._version)
            for (tokens, logps), text in zip(responses, texts, strict=True)
        ]

    def logprobs(
        self, prompts: Sequence[Prompt], rollouts: Sequence[Sequence[Rollout]], *, temperature: float = 1.0
    ) -> TokenLogprobs:
        """As the protocol says (`LanguageModel.logprobs`).

        `scoring_tokens` bounds one forward. With gradients, the activations of all of them are kept until the backward
        pass: the caller hands over no more responses than that.
        """
        ids_P = [self.codec.encode(prompt) for prompt in prompts]
        logps, entropies = [], []
        with self.shelf or nullcontext(), self._ready():
            tokens_PGT, mask_PGT = (tensor.to(self.device) for tensor in pad_tokens(rollouts))
            for rows in slices(len(ids_P), self.scoring_tokens // max(map(len, ids_P))):
                logp, entropy = self._score(ids_P[rows], tokens_PGT[rows], mask_PGT[rows], temperature)
                logps.append(logp)
                entropies.append(entropy)
        return TokenLogprobs(torch.cat(logps), mask_PGT, torch.cat(entropies))

    def fingerprint(self) -> str:
        """SHA-256 of all weights, names and bytes, hexadecimal; a view without its adapter leaves the adapter out."""
        digest = hashlib.sha256()
        for name, tensor in sorted(tensors_of(self.module), key=itemgetter(0)):
            if self.adapter or ".lora_" not in name:
                digest.update(name.encode() + tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    # Policy

    def trainable(self) -> Mapping[str, nn.Parameter]:
        """The parameters that require gradients, by name, in the module's order."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def updated(self) -> None:
        """Count one more update."""
        self._version += 1

    def save(self, folder: Path) -> None:
        """Write all weights, or with an adapter only its own, and the tokenizer, as transformers and peft read them.

        folder: exists. Where it cannot be written, the file system's own error is raised (OSError, SafetensorError).
        """
        lora = {"save_embedding_layers": False} if self._has_adapter else {}
        self.module.save_pretrained(folder, state_dict=dict(tensors_of(self.module)), **lora)
        self.codec.tokenizer.save_pretrained(folder)

    def restore(self, folder: Path, version: int) -> None:
        """Read back what `save` wrote, after which `version` is as given.

        Raises UserError where the weights cannot be read or are another model's; the module then stays as it was.
        """
        restore = restore_adapters if self._has_adapter else restore_module
        restore(self.module, folder)
        self._version = version

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights by name, as the base model names them; adapters, where this view uses them, merged in."""
        return merged(self.module, adapter=self.adapter)

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take all weights by name, in place. Raises ValueError where they are another model's."""
        take(self.module.state_dict(), weights)

    @property
    def nbytes(self) -> int:
        """Bytes that `save` writes, about: all weights, or with adapters only theirs."""
        saved = self.trainable().values() if self._has_adapter else self.module.parameters()
        return sum(p.numel() * p.element_size() for p in saved)

    # Inside

    @property
    def device(self) -> torch.device:
        """Where the weights are, or will be once they are needed."""
        return self.shelf.device if self.shelf else self._head.device

    def shelve(self) -> None:
        """Keep the weights in host memory from now on, but while responses are scored. For a frozen model whose module
        nobody else has; it can score, and nothing else."""
        self.shelf = Shelf(self.module)

    def unshelve(self) -> None:
        """Have the weights stay on their device again."""
        if self.shelf:
            self.shelf.bring_back()
            self.shelf = None

    @property
    def sizes(self) -> Sizes:
        """What a token takes in memory."""
        return Sizes.of(self._config, self._head.itemsize)

    def fit(self) -> None:
        """Hold as many tokens from now on as a GPU has free memory for. On CPU nothing changes."""
        free = free_bytes(self.device)
        if free is not None:
            self.batch_tokens, self.scoring_tokens = self.sizes.fit(free)

    @property
    def _has_adapter(self) -> bool:
        return hasattr(self.module, "disable_adapter")

    def _ready(self) -> AbstractContextManager[None]:
        # Activation checkpointing only happens in training mode; with dropout off the mode changes nothing else.
        self.module.train(self.checkpointing and torch.is_grad_enabled())
        if self._has_adapter and not self.adapter:
            return self.module.disable_adapter()  # type: ignore[no-any-return]
        return nullcontext()

    def _score(
        self, ids_P: Sequence[Sequence[int]], tokens_PGT: Tensor, mask_PGT: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """log p and entropy of every token, [P, G, T], scoring responses of like length together."""
        size = tokens_PGT.shape[1]
        tokens_NT, mask_NT = tokens_PGT.flatten(0, 1), mask_PGT.flatten(0, 1)
        context = None if self.checkpointing else self._read_prompts(ids_P, growing=False)
        head = self._head if temperature == 1 else lambda hidden_NH: self._head(hidden_NH) / temperature
        places, logps, entropies = [], [], []
        for rows in like_lengths(mask_NT.sum(1).tolist(), self.scoring_tokens, max(map(len, ids_P))):
            row_N = self._indices(rows)
            width = int(mask_NT[row_N].sum(1).max())
            tokens, mask = tokens_NT[row_N, :width], mask_NT[row_N, :width]
            if context is None:
                hidden = read_whole(self._body, [ids_P[row // size] for row in rows], tokens)
            else:
                hidden = self._read_response(context.select(row_N // size), tokens)
            logp, entropy = chosen_logprobs(head, hidden[mask], tokens[mask], self.codec.vocabulary)
            row, column = mask.nonzero(as_tuple=True)
            places.append(row_N[row] * tokens_NT.shape[1] + column)
            logps.append(logp)
            entropies.append(entropy)
        place, empty = torch.cat(places), torch.zeros(tokens_NT.numel(), device=self.device)
        return (
            empty.index_copy(0, place, torch.cat(logps)).view(tokens_PGT.shape),
            empty.index_copy(0, place, torch.cat(entropies)).view(tokens_PGT.shape),
        )

    def _read_prompts(self, ids_P: Sequence[Sequence[int]], *, growing: bool) -> Context:
        return read_prompts(self._body, self._config, ids_P, self.device, growing=growing)

    def _read_on(self, context: Context, tokens_NT: Tensor) -> Context:
        return read(self._body, context, tokens_NT)[0]

    def _read_on_without_adapter(self, context: Context, tokens_NT: Tensor) -> Context:
        with self._ready():
            return self._read_on(context, tokens_NT)

    def _ends(self) -> Tensor:
        ends_V = torch.zeros(self.codec.vocabulary, dtype=torch.bool, device=self.device)
        ends_V[list(self.codec.end_ids)] = True
        return ends_V

    def _read_response(self, context: Context, tokens_NT: Tensor) -> Tensor:
        """Hidden states that predict each response token: the prompt's last, then those of all tokens but the last."""
        first = context.hidden_NH[:, None]
        return (
            torch.cat([first, read(self._body, context, tokens_NT[:, :-1])[1]], 1) if tokens_NT.shape[1] > 1 else first
        )

    def _indices(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, device=self.device)
