"""The exported data, read by verl's own data set: prompts token for token, batches in order, and grades."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from tests.contract_verl.shapes import PAPER, REGIMES, ROWS, composed, exported, paper, verl
from tests.models.chats import CHAT, model_folder, tokenizer
from tiltlab.models.loading import ModelConfig, load_codec
from tiltlab.seeds import batch_indices
from tiltlab.study.study import taught
from tiltlab.verl.settings import Wanted

assert verl

DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHAT
"""A template that writes the date, as Llama's does."""


def read(config: Any) -> tuple[Any, Any, Any]:
    """Both data sets as verl's trainer makes them, and what its agent loop makes prompts with."""
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils.config import omega_conf_to_dataclass
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    some = [
        create_rl_dataset(files, config.data, model.tokenizer, model.processor, is_train=train)
        for files, train in ((config.data.train_files, True), (config.data.val_files, False))
    ]
    given = config.data.apply_chat_template_kwargs
    kind = model.hf_config.model_type
    builder = create_continuous_token_builder(model.tokenizer, hf_model_type=kind, chat_template_kwargs=given)
    return some[0], some[1], builder


def require_same_prompts(wanted: Wanted, folder: Path) -> None:
    """Token for token, for every row, what tiltlab's codec gives the model."""
    recipe = wanted.recipe
    (task,) = taught(recipe)
    codec = load_codec(recipe.model)
    train, validation, builder = read(composed(folder))
    problems = task.problems("train")
    order = [
        problems[i]
        for step in range(recipe.train.steps)
        for i in batch_indices(step, recipe.train.prompts, len(problems), wanted.seed)
    ]
    assert len(train) == len(order)
    some = range(0, len(order), max(1, len(order) // 200))
    chosen = task.problems("validation")[: recipe.validation.problems]
    assert len(validation) == len(chosen)
    pairs = [*((train[i], order[i]) for i in some), *((validation[i], chosen[i]) for i in range(len(chosen)))]
    for row, problem in pairs:
        assert builder.build_initial_tokens(list(row["raw_prompt"])) == codec.encode(task.render(problem))
        assert row["extra_info"]["id"] == problem.id
        assert row["reward_model"]["ground_truth"] == problem.answer


def test_plain_prompts(tmp_path: Path) -> None:
    require_same_prompts(exported(tmp_path, REGIMES["tilted"]), tmp_path)


@pytest.mark.parametrize("name", PAPER)
def test_prompts_of_the_paper(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = exported(out, REGIMES["tilted"], f"recipes/paper/{name}.yaml", *paper(name, tmp_path))
    require_same_prompts(wanted, out)


def test_prompts_with_a_date_in_them(tmp_path: Path) -> None:
    chats = tokenizer((row["problem"] for row in ROWS), DATED)
    dated = [f"model.path={model_folder(LlamaConfig, chats, tmp_path / 'dated')}", "model.date=2024-07-26"]
    out = tmp_path / "out"
    overrides = paper(PAPER[0], tmp_path, *dated)
    require_same_prompts(exported(out, REGIMES["tilted"], f"recipes/paper/{PAPER[0]}.yaml", *overrides), out)
    assert "26 Jul 2024" in read(composed(out))[0][0]["raw_prompt"][0]["content"]


def test_batches_are_drawn_in_the_exported_order(tmp_path: Path) -> None:
    from verl.trainer.ppo.utils import create_rl_sampler

    exported(tmp_path, REGIMES["tilted"])
    config = composed(tmp_path)
    train, _, _ = read(config)
    assert list(create_rl_sampler(config.data, train)) == list(range(len(train)))


def graded(config: Any, row: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """What verl's reward worker says of a response, called as the agent loop calls it."""
    import numpy as np
    from tensordict import TensorDict
    from verl import DataProto
    from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

    prompt, response = torch.tensor([[0, 0]]), torch.tensor([ids])
    whole = torch.cat([prompt, response], 1)
    tensors = {"prompts": prompt, "responses": response, "input_ids": whole, "attention_mask": torch.ones_like(whole)}
    others = {key: np.array([value], dtype=object) for key, value in row.items() if key != "dummy_tensor"}
    others |= {"tool_extra_fields": np.array([{}], dtype=object), "__num_turns__": np.array([2])}
    data = DataProto(batch=TensorDict(tensors, batch_size=1), non_tensor_batch=others)

    async def call() -> dict[str, Any]:
        return await RewardLoopWorker(config).compute_score(data)

    said: dict[str, Any] = asyncio.run(call())
    return said


def test_a_template_that_verls_settings_could_take_for_their_own(tmp_path: Path) -> None:
    """verl resolves its settings before it starts, and reads them again afterwards."""
    from omegaconf import OmegaConf

    out = tmp_path / "out"
    overrides = paper(PAPER[0], tmp_path, "tasks.0.template='What is ${question}$?'")
    exported(out, REGIMES["tilted"], f"recipes/paper/{PAPER[0]}.yaml", *overrides)
    config = composed(out)
    OmegaConf.resolve(config)
    row = read(config)[1][0]
    assert row["raw_prompt"][0]["content"].count("What is $A crate holds") == 1
    said = graded(config, row, load_codec(ModelConfig(config.actor_rollout_ref.model.path)).encode("\\boxed{1}"))
    assert said["reward_extra_info"]["answer"] == "1"


def test_responses_are_graded_by_tiltlab(tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = exported(out, REGIMES["tilted"], f"recipes/paper/{PAPER[0]}.yaml", *paper(PAPER[0], tmp_path))
    (task,) = taught(wanted.recipe)
    config = composed(out)
    _, validation, _ = read(config)
    codec = load_codec(wanted.recipe.model)
    row, problem = validation[0], task.problems("validation")[0]
    huge = "9^{9^{9^9}}"
    for answer in (problem.answer, f"{{{problem.answer}}}.0", "\\frac{2}{3}", "7", huge):
        text = f"so it is \\boxed{{{answer}}}"
        for ends in ([], list(codec.end_ids)):
            ids = [*codec.tokenizer(text, add_special_tokens=False)["input_ids"], *ends]
            said, right = graded(config, row, ids), task.grade(problem, text)
            about = said["reward_extra_info"]
            assert said["reward_score"] == pytest.approx(right.reward, nan_ok=True)
            assert (about["reason"], about["answer"], about["problem"]) == (right.reason, right.answer, problem.id)
            assert (about["complete"], about["tokens"]) == (bool(ends), len(ids))
            assert [int(i) for i in about["ids"].split()] == ids
