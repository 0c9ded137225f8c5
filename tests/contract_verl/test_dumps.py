"""What verl dumps of an exported run, by its own code from the agent loop to the file, and what tiltlab reads of it."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.contract_verl.shapes import PAPER, REGIMES, composed, exported, paper
from tiltlab.evaluation.outside import Asked, Imported, read_outside
from tiltlab.models.codec import Codec
from tiltlab.models.loading import load_codec
from tiltlab.study.study import taught
from tiltlab.tasks.base import Task
from tiltlab.types import Problem
from tiltlab.verl.plugin import Trainer
from tiltlab.verl.settings import Wanted


class Drawn:
    """Stands for vLLM: responses to each prompt, the last of which is truncated; the rest is verl's agent loop."""

    def __init__(self, trainer: Any, config: Any, codec: Codec) -> None:
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

        self.codec, self.config = codec, config
        kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class
        self.worker = kind.__new__(kind)
        self.worker.processor, self.worker.distillation_enabled, self.worker.mm_processor_kwargs = None, False, {}

    def generate_sequences(self, batch: Any) -> None:
        asyncio.run(self._answer(batch, self.config.actor_rollout_ref.rollout.val_kwargs.n))

    async def _answer(self, batch: Any, n: int) -> None:
        import transfer_queue as tq
        from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput
        from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

        grade = RewardLoopWorker(self.config).compute_score  # of this event loop
        self.worker.reward_loop_worker_handles = [SimpleNamespace(compute_score=SimpleNamespace(remote=grade))]
        for i in range(len(batch)):
            prompt = {key: getattr(value[i], "data", value[i]) for key, value in batch.items() if key != "validate"}
            prompt["global_steps"] = 0
            prompt_ids = self.codec.tokenizer(prompt["raw_prompt"][0]["content"], add_special_tokens=False)["input_ids"]
            for j in range(n):
                ids = response(self.codec, prompt["reward_model"]["ground_truth"], j, complete=j < n - 1)
                output = AgentLoopOutput(
                    prompt_ids=prompt_ids, response_ids=ids, response_mask=[1] * len(ids),
                    response_logprobs=[-0.5] * len(ids), num_turns=2, metrics=AgentLoopMetrics(),
                    extra_fields={"min_global_steps": 0, "max_global_steps": 0},
                )  # fmt: skip
                await self.worker._agent_loop_postprocess(output, True, **prompt, session_id=j)
            await tq.async_kv_put(key=prompt["uid"], partition_id="val", tag={"status": "finished"})


def response(codec: Codec, answer: str, number: int, *, complete: bool) -> list[int]:
    """Right, wrong, without an answer, and so on."""
    said = [f"It is \\boxed{{{answer}}}.", "It is \\boxed{1}.", "Nobody knows.", "2 \\boxed{"][number % 4]
    ids = codec.tokenizer(said, add_special_tokens=False)["input_ids"]
    return [*ids, *codec.end_ids[:1]] if complete else list(ids)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Wanted, Any, Task, Codec]:
    out = tmp_path / "out"
    wanted = exported(out, REGIMES["tilted"], f"recipes/paper/{PAPER[0]}.yaml", *paper(PAPER[0], tmp_path))
    (task,) = taught(wanted.recipe)
    return wanted, composed(out, ["data.dataloader_num_workers=0"]), task, load_codec(wanted.recipe.model)


def trainer_of(config: Any, step: int) -> Any:
    """verl's trainer without workers: tokenizer, data, replay buffer and dumps."""
    trainer = Trainer(config)
    trainer._init_tokenizer()
    trainer._init_dataloader()
    trainer._init_dump_executor()
    trainer.global_steps = step
    return trainer


def read(folder: Path, task: Task, said: list[str]) -> Imported:
    return read_outside(folder, Asked(task=task, say=said.append), "last")


def test_a_validation_comes_back_whole(queue: Any, run: tuple[Wanted, Any, Task, Codec]) -> None:
    wanted, config, task, codec = run
    trainer = trainer_of(config, 500)
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
    trainer.agent_loop_manager = Drawn(trainer, config, codec)
    figures = trainer._validate()
    trainer._shutdown_dump_executor()
    assert figures["val-core/math/acc/mean@4"] == pytest.approx(0.25)

    said: list[str] = []
    found = read(Path(config.trainer.validation_data_dir), task, said)
    problems = task.problems("validation")[: wanted.recipe.validation.problems]
    n = wanted.recipe.validation.n
    assert {record.problem for record in found.records} == {problem.id for problem in problems}
    assert len(found.records) == n * len(problems)
    for record, sample in zip(found.records, found.samples, strict=True):
        problem = found.problems[record.problem]
        right = {codec.decode([ids])[0]: ids for ids in all_responses(codec, problem, n)}
        assert sample.ids == tuple(right[record.text])
        assert (record.tokens, record.complete) == (len(sample.ids), sample.ids[-1] in codec.end_ids)
        assert (record.reason, record.answer) == (
            task.grade(problem, record.text).reason,
            task.grade(problem, record.text).answer,
        )
        assert sample.step == 500
    assert any("graded again, as the file does (acc)" in line for line in said)
    assert not any("no finish reason" in line or "no lengths" in line for line in said)


def all_responses(codec: Codec, problem: Problem, n: int) -> list[list[int]]:
    return [response(codec, problem.answer, j, complete=j < n - 1) for j in range(n)]


def test_rollouts_come_back_with_their_log_probabilities(queue: Any, run: tuple[Wanted, Any, Task, Codec]) -> None:
    from tensordict import TensorDict
    from tensordict.tensorclass import NonTensorData, NonTensorStack

    _, config, task, codec = run
    trainer = trainer_of(config, 3)
    rows = [trainer.train_dataset[i] for i in range(4)]
    draw = torch.Generator().manual_seed(0)
    columns: dict[str, list[torch.Tensor]] = {}
    about = [row for row in rows for _ in range(2)]
    for i, row in enumerate(about):
        prompt = codec.tokenizer(row["raw_prompt"][0]["content"], add_special_tokens=False)["input_ids"]
        ids = response(codec, row["reward_model"]["ground_truth"], i, complete=i % 2 == 0)
        fields = {
            "prompts": torch.tensor(prompt),
            "responses": torch.tensor(ids),
            "rm_scores": torch.zeros(len(ids)),
            "old_log_probs": -torch.rand(len(ids), generator=draw),
            "ref_log_prob": -torch.rand(len(ids), generator=draw),
        }
        for name, value in fields.items():
            columns.setdefault(name, []).append(value)
    keys = [f"u{i // 2}_{i % 2}_0" for i in range(len(about))]
    nested = {name: torch.nested.as_nested_tensor(values, layout=torch.jagged) for name, values in columns.items()}
    whole = TensorDict(nested, batch_size=len(about))
    whole["uid"] = NonTensorStack(*[NonTensorData(key.split("_")[0]) for key in keys])
    for name in ("reward_model", "extra_info"):
        whole[name] = NonTensorStack(*[NonTensorData(row[name]) for row in about])
    batch = queue.kv_batch_put(keys=keys, partition_id="train", fields=whole)
    trainer._log_rollout_data(batch, {}, config.trainer.rollout_data_dir)
    trainer._shutdown_dump_executor()
    queue.kv_clear(keys=keys, partition_id="train")

    found = read(Path(config.trainer.rollout_data_dir), task, [])
    assert len(found.records) == len(about)
    told = {(r.problem, r.text): r for r in found.records}
    for i, row in enumerate(about):
        text = codec.decode([columns["responses"][i].tolist()])[0]
        record = told[row["extra_info"]["id"], text]
        assert record.logp == pytest.approx(float(columns["old_log_probs"][i].double().sum()))
        assert record.ref_logp == pytest.approx(float(columns["ref_log_prob"][i].double().sum()))
        assert (record.tokens, record.complete) == (len(columns["responses"][i]), i % 2 == 0)
