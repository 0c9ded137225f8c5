"""Makes the embedded reference model again: `python -m tiltlab.embedded.make FOLDER`.

A Llama of a third of a million weights with one token a character learns, by plain next-token prediction on the
response, what the students of tasks/sums.py write. Problems of the test and validation splits are never shown to it.
"""

import json
import random
import sys
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tiltlab.tasks.sums import Sums, write

SEED, STEPS, BATCH, PEAK_LR = 0, 3000, 256, 4e-3
CHARACTERS = "0123456789+=,; abcdefghijklmnopqrstuvwxyz"
PAD, EOS = "<pad>", "<eos>"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; text holding any other character is an error of the caller and becomes <pad>."""
    vocabulary = {token: i for i, token in enumerate([PAD, EOS, *CHARACTERS])}
    raw = Tokenizer(WordLevel(vocabulary, unk_token=PAD))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=PAD, eos_token=EOS, unk_token=PAD)


def architecture(vocabulary: int) -> LlamaConfig:
    """A Llama of a third of a million weights, for a vocabulary of this size."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def batch(rng: random.Random, codec: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (-100 over prompts and padding): both int64 [BATCH, L]."""
    rows, labels = [], []
    for _ in range(BATCH):
        task = rng.choice((Sums("lazy-sum"), Sums("noisy-sum")))
        problem = rng.choice(_TRAIN)
        a, b = problem.columns["a"], problem.columns["b"]
        prompt = codec(task.render(problem))["input_ids"]
        response = codec(write(task.name, a, b, rng))["input_ids"] + [codec.eos_token_id]
        rows.append(prompt + response)
        labels.append([-100] * len(prompt) + response)
    width = max(map(len, rows))
    return (
        torch.tensor([row + [codec.pad_token_id] * (width - len(row)) for row in rows]),
        torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
    )


def main(folder: Path) -> None:
    """Train the model and write it, its tokenizer and made.json to a folder."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)
    codec = tokenizer()
    model = LlamaForCausalLM(architecture(len(codec)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=STEPS, pct_start=0.1)
    losses = []
    for step in track(range(STEPS), "learning what the students write"):
        tokens, labels = batch(rng, codec)
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 200 == 0:
            print(f"step {step}  loss {sum(losses[-100:]) / len(losses[-100:]):.4f}", flush=True)
    model.save_pretrained(folder)
    codec.save_pretrained(folder)
    note = {"seed": SEED, "steps": STEPS, "batch": BATCH, "loss_last_100": sum(losses[-100:]) / 100}
    note["parameters"] = model.num_parameters()
    (folder / "made.json").write_text(json.dumps(note | {"torch": torch.__version__}, indent=1) + "\n")


_TRAIN = Sums("lazy-sum").problems("train")

if __name__ == "__main__":
    main(Path(sys.argv[1]))
