"""Decoding: the plain loop, slots (steps as they are, and as CUDA graphs), and transformers' own generate, in one run.

    python benchmarks/decoding.py [--model embedded] [--rows 13 64] [--tokens 60] [--prompt 16] [--rounds 3]
    python benchmarks/decoding.py --random llama-3.2-3b --rows 13 64 128 256 --tokens 1024     (on a GPU)

Two loads. `full`: as many responses as rows, each with all its tokens; ms a step are seconds by tokens of a response.
`ending`: four times as many responses as rows, of which some token ends each, a third of the length in the mean; what
waits takes the place of what ended, or does not. There transformers' generate decodes lot by lot. The sides take turns
and figures are medians of the rounds, after one that is not counted; `x` is how many times as many tokens a second as
the plain loop has with as many rows. A random model has a published one's shape, and weights that mean nothing.
"""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tiltlab.system.memory import tune

if __name__ == "__main__":
    tune()

import torch
import transformers
from transformers import AutoModelForCausalLM

from tiltlab.models.codec import Codec
from tiltlab.models.engine import Request, requests
from tiltlab.models.hf import HFModel
from tiltlab.models.loading import ModelConfig, load_codec, load_model
from tiltlab.models.seating import SMALLEST, bucket
from tiltlab.plan.published import PUBLISHED, settings_of

Side = Callable[[Sequence[Request], int, bool], int]
"""Requests, rows side by side, whether responses may end -> how many tokens were drawn."""


def loaded(arguments: argparse.Namespace) -> tuple[Any, Codec]:
    """A transformers model and its codec, in which tokens enough end a response for a third of the length."""
    if arguments.random is None:
        config = ModelConfig(path=arguments.model)
        module, codec = load_model(config).module, load_codec(config)
    else:
        name = next(name for name in PUBLISHED if arguments.random in name.lower())
        settings, device = settings_of(ModelConfig(path=name))[0], "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
        with torch.device(device):
            module = AutoModelForCausalLM.from_config(settings)
        torch.set_default_dtype(torch.float32)
        codec = Codec(name, None, (0,), settings.max_position_embeddings, settings.vocab_size)
    module.requires_grad_(False).eval()
    chance = min(0.5, 3 / arguments.tokens)
    ends = torch.randperm(codec.vocabulary, generator=torch.Generator().manual_seed(0))
    return module, replace(codec, eos_ids=tuple(ends[: max(1, round(chance * codec.vocabulary))].tolist()))


def drawing(model: HFModel) -> Side:
    def draw(asked: Sequence[Request], rows: int, ending: bool) -> int:
        model.batch_tokens = rows * held(asked)
        drawn = model.draw(asked, 1.0, ignore_eos=not ending)
        return sum(len(response.tokens) for response in drawn)

    return draw


def held(asked: Sequence[Request]) -> int:
    """Tokens of a row at most, rounded up as slots do, so that either side has as many rows."""
    return bucket(max(len(request.ids) + request.limit for request in asked), SMALLEST)


def generating(module: Any, codec: Codec) -> Side:
    @torch.no_grad()
    def generate(asked: Sequence[Request], rows: int, ending: bool) -> int:
        drawn = 0
        limit, ends = asked[0].limit, torch.tensor(codec.eos_ids, device=module.device)
        for start in range(0, len(asked), rows):
            ids = torch.tensor([request.ids for request in asked[start : start + rows]], device=module.device)
            out = module.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                max_new_tokens=limit,
                min_new_tokens=None if ending else limit,
                eos_token_id=list(codec.eos_ids) if ending else None,
                pad_token_id=codec.eos_ids[0],
            )[:, ids.shape[1] :]
            ended = torch.isin(out, ends).cumsum(1)
            drawn += int(((ended - torch.isin(out, ends).long()) == 0).sum()) if ending else out.numel()
        return drawn

    return generate


def sides(module: Any, codec: Codec) -> dict[str, Side]:
    plain, slots = (HFModel(module, codec, decoding=decoding) for decoding in ("plain", "slots"))
    found = {"plain": drawing(plain), "slots": drawing(slots)}
    if module.device.type == "cuda":
        eager = HFModel(module, codec, decoding="slots")
        eager._slots.recorded, eager._slots._slots = False, None
        found = {"plain": found["plain"], "slots": drawing(eager), "slots, graphs": found["slots"]}
    return found | {"transformers": generating(module, codec)}


def seconds(work: Callable[[], int]) -> tuple[float, int]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    tokens = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, tokens


def measured(side: Side, asked: Sequence[Request], rows: int, ending: bool) -> tuple[float, int] | None:
    """Seconds and tokens; None where memory does not do."""
    try:
        return seconds(lambda: side(asked, rows, ending))
    except torch.OutOfMemoryError:
        gc.collect()
        torch.cuda.empty_cache()
        return None


def report(all_sides: dict[str, Side], codec: Codec, rows: int, ending: bool, arguments: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(1)
    count = 4 * rows if ending else rows
    ids_P = torch.randint(codec.vocabulary, (-(-count // 8), arguments.prompt), generator=generator).tolist()
    taken: dict[str, list[tuple[float, int] | None]] = {name: [] for name in all_sides}
    for turn in range(arguments.rounds + 1):
        asked = requests(ids_P, 8, arguments.tokens, turn)[:count]
        for name, side in all_sides.items():
            taken[name].append(measured(side, asked, rows, ending))
    plain = None
    for name, runs in taken.items():
        did = [run for run in runs[1:] if run is not None]
        label = f"  {'ending' if ending else 'full':7s}{rows:5d} rows  {name:14s}"
        if not did:
            print(f"{label} out of memory")
            continue
        rate = statistics.median(tokens / took for took, tokens in did)
        plain = rate if name == "plain" else plain
        step = (
            "" if ending else f"{1000 * statistics.median(took for took, _ in did) / arguments.tokens:9.2f} ms a step"
        )
        print(f"{label}{rate:10.0f} tokens/s {f'{rate / plain:6.2f} x' if plain else '':8s}{step}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="a model as a recipe names it")
    parser.add_argument("--random", help="a published shape with random weights in its place, such as llama-3.2-3b")
    parser.add_argument("--rows", type=int, nargs="+", default=[13, 64, 128, 256])
    parser.add_argument("--tokens", type=int, default=60, help="of a response at most")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of a prompt; eight responses share one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--loads", nargs="+", choices=["full", "ending"], default=["full", "ending"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    module, codec = loaded(arguments)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads")
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU")
    print(f"{codec.name}, {arguments.prompt} + {arguments.tokens} tokens, median of {arguments.rounds}")
    for load in arguments.loads:
        for rows in arguments.rows:
            report(sides(module, codec), codec, rows, load == "ending", arguments)


if __name__ == "__main__":
    main()
