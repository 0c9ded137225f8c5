"""Folders, steps, prompts and grades of other programs' files."""

import json
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest

from tests.records import writers
from tests.records.study import drawn, gold, question, written_task
from tiltlab.errors import UserError
from tiltlab.evaluation.outside import Asked
from tiltlab.records.opening import Reading, read_samples
from tiltlab.records.recognise import are_responses, is_own
from tiltlab.storage.records import write_records
from tiltlab.verdict.inputs import base_records, from_files

BASE, TUNED = drawn("spread 25: p^1.04, wrong ones likelier")


def dumped(folder: Path) -> Path:
    """verl's validation dumps at three steps."""
    for step, records in ((0, BASE), (100, BASE), (500, TUNED)):
        writers.lines(folder / f"{step}.jsonl", writers.verl_rows(records, step))
    return folder


def test_dumps_of_several_steps_are_a_base_and_a_tuned_model(tmp_path: Path) -> None:
    folder, said = dumped(tmp_path / "val"), list[str]()
    asked = Asked(task=written_task(tmp_path), say=said.append)
    found = from_files(folder, folder, asked=asked)
    assert [r.text for r in found.base] == [r.text for r in BASE]
    assert [r.text for r in found.tuned] == [r.text for r in TUNED]
    assert any("of 3 steps (0 to 500), those of step 0" in line for line in said)
    assert any("those of step 500" in line for line in said)
    pair = from_files(folder / "0.jsonl", folder / "500.jsonl", asked=asked)
    assert (pair.base, pair.tuned) == (found.base, found.tuned)
    other = from_files(folder, folder, asked=replace(asked, step=100))
    assert [r.text for r in other.tuned] == [r.text for r in BASE]
    with pytest.raises(UserError, match="no responses of step 7; it has those of 0, 100, 500"):
        from_files(folder, folder, asked=replace(asked, step=7))


def test_steps_in_one_file_are_told_apart_too(tmp_path: Path) -> None:
    rows = [*writers.verl_rows(TUNED, 500), *writers.verl_rows(BASE, 0)]
    file = writers.lines(tmp_path / "all.jsonl", rows)
    found = from_files(file, file, asked=Asked(task=written_task(tmp_path)))
    assert [r.text for r in found.base] == [r.text for r in BASE]
    assert [r.text for r in found.tuned] == [r.text for r in TUNED]
    (one,) = {sample.step for sample in read_samples(file, Reading(), 500, lambda _: None)}
    assert one == 500


def test_a_step_may_stand_in_the_name_of_the_file(tmp_path: Path) -> None:
    for step, records in ((1, BASE), (20, TUNED)):
        writers.trl(records, tmp_path / "trl", step)
        writers.nemo_rl(records, tmp_path / "nemo").rename(tmp_path / f"nemo/train_data_step{step}.jsonl")
    texts = sorted(r.text for r in TUNED)
    for folder in (tmp_path / "nemo", tmp_path / "trl"):
        assert sorted(r.text for r in base_records(folder, Asked(step=20, grades="theirs"))) == texts


def test_a_folder_is_read_whole_and_what_is_foreign_in_it_is_said(tmp_path: Path) -> None:
    folder, said = tmp_path / "run", list[str]()
    writers.lines(folder / "run_rollouts_000000.jsonl", writers.open_instruct_rows(BASE[:240]))
    writers.lines(folder / "run_rollouts_000001.jsonl", writers.open_instruct_rows(BASE[240:]))
    writers.lines(folder / "run_metadata.jsonl", [{"run_name": "run", "git_commit": "0"}])
    records = base_records(folder, Asked(grades="theirs", say=said.append))
    assert len(records) == 480
    assert any("1 files are of no format that is known, and left out: run_metadata.jsonl" in line for line in said)
    writers.lines(folder / "0.jsonl", writers.verl_rows(BASE))
    with pytest.raises(UserError, match="files of several formats"):
        base_records(folder, Asked(grades="theirs"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="holds no file of responses"):
        base_records(tmp_path / "bare", Asked())


def test_of_prime_rl_s_folders_the_evaluation_of_all_episodes_is_read(tmp_path: Path) -> None:
    rows, root = [writers.prime_rl_row(r) for r in BASE], tmp_path / "rollouts/step_0"
    for kind in ("eval/all", "eval/effective", "train/all", "train/effective"):
        writers.lines(root / kind / "traces.jsonl", rows if kind == "eval/all" else rows[:8])
    said: list[str] = []
    assert len(base_records(tmp_path, Asked(say=said.append))) == 480
    assert any("holds eval and train; the first is read" in line for line in said)


def test_without_a_task_each_prompt_is_a_problem(tmp_path: Path) -> None:
    records = base_records(writers.verl(BASE, tmp_path), Asked())
    assert len({r.problem for r in records}) == 60
    assert [r.sample for r in records] == [r.sample for r in BASE]
    assert [r.reason for r in records] == [r.reason for r in BASE]


def test_how_many_prompts_are_matched_is_said_and_none_is_an_error(tmp_path: Path) -> None:
    rows = writers.verl_rows(BASE)
    rows[4]["input"] = "user\nAnother question?\nassistant\n"
    file, said, task = writers.lines(tmp_path / "0.jsonl", rows), list[str](), written_task(tmp_path)
    assert len(base_records(file, Asked(task=task, say=said.append))) == 479
    assert any("479 of 480 responses answer 60 of 60" in line and "0.jsonl line 5" in line for line in said)
    foreign = writers.lines(tmp_path / "1.jsonl", [row | {"input": "Another question?"} for row in rows])
    with pytest.raises(UserError, match=r"none of 480 responses answers .* 'Another question\?'"):
        base_records(foreign, Asked(task=task))


def test_problems_that_ask_the_same_are_told_apart_by_their_gold_answers(tmp_path: Path) -> None:
    rows = [{"id": str(i), "problem": "How many plums are in it?", "answer": str(gold(str(i)))} for i in range(3)]
    writers.lines(tmp_path / "twins.jsonl", rows)
    from tiltlab.config.tasks import load_task

    task = load_task(f"{{task: data, grader: number, test: {tmp_path / 'twins.jsonl'}}}")
    given = [row | {"input": "How many plums are in it?"} for row in writers.verl_rows(BASE[:24])]
    records = base_records(writers.lines(tmp_path / "0.jsonl", given), Asked(task=task))
    assert [r.problem for r in records] == [r.problem for r in BASE[:24]]


def test_grades_that_differ_are_counted(tmp_path: Path) -> None:
    rows = writers.verl_rows(BASE)
    right = [i for i, r in enumerate(BASE) if r.reason == "correct"]
    wrong = [i for i, r in enumerate(BASE) if r.reason == "wrong"]
    for i in right[:3]:
        rows[i]["score"] = 0.0
    rows[wrong[0]]["score"] = 1.0
    file, said, task = writers.lines(tmp_path / "0.jsonl", rows), list[str](), written_task(tmp_path)
    ours = base_records(file, Asked(task=task, say=said.append))
    assert [r.reason for r in ours] == [r.reason for r in BASE]
    assert any("4 of 480 grades differ from the file's (score): 3 are right only here, 1 only there" in s for s in said)
    theirs = base_records(file, Asked(task=task, grades="theirs"))
    assert sum(r.reason == "correct" for r in theirs) == len(right) - 2


def test_of_several_grades_the_one_about_the_answer_counts_unless_another_is_named(tmp_path: Path) -> None:
    file, said = writers.trl(BASE, tmp_path), list[str]()
    found = base_records(file, Asked(say=said.append))
    assert [r.reason == "correct" for r in found] == [r.reason == "correct" for r in BASE]
    assert any("accuracy_reward" in line for line in said)
    assert all(r.reason == "correct" for r in base_records(file, Asked(grades="theirs:format_reward")))
    with pytest.raises(UserError, match="no grade 'x'; it has accuracy_reward, format_reward"):
        base_records(file, Asked(grades="theirs:x"))
    rows = [{"text": r.text, "prompt": question(r.problem)} for r in BASE]
    with pytest.raises(UserError, match="no grades of its own; name the task"):
        base_records(writers.lines(tmp_path / "mine.jsonl", rows), Asked())
    with pytest.raises(UserError, match="--grades cannot be 'best'"):
        base_records(file, Asked(grades="best"))


def test_scores_that_are_not_known_are_not_wrong(tmp_path: Path) -> None:
    rows = writers.verl_rows(BASE)
    for row in rows[:5]:
        row["score"] = float("nan")
    records = base_records(writers.lines(tmp_path / "0.jsonl", rows), Asked(grades="theirs"))
    assert [r.reason for r in records[:5]] == ["error"] * 5


def test_unequal_numbers_of_responses_and_failed_requests_are_no_fault(tmp_path: Path) -> None:
    rows = writers.openai_rows(BASE[:-3])
    rows[7] = {"custom_id": "0-7", "response": {"status_code": 500, "body": {}}, "error": {"message": "x"}}
    said: list[str] = []
    file = writers.lines(tmp_path / "output.jsonl", rows)
    records = base_records(file, Asked(task=written_task(tmp_path), say=said.append))
    assert len(records) == 476
    assert any("1 rows hold no response and are left out" in line and "line 8" in line for line in said)


def test_token_ids_need_a_tokenizer_where_a_task_is_to_grade(tmp_path: Path) -> None:
    file = writers.open_instruct(BASE, tmp_path)
    with pytest.raises(UserError, match="--tokenizer"):
        base_records(file, Asked(task=written_task(tmp_path)))
    with pytest.raises(UserError, match=r"tokenizer .*none.json cannot be read"):
        base_records(file, Asked(Reading(tokenizer=tmp_path / "none.json"), written_task(tmp_path)))


def test_a_format_may_be_forced_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    file = writers.verl(BASE, tmp_path)
    assert len(base_records(file, Asked(Reading("verl")))) == 480
    with pytest.raises(UserError, match="line 1 is not completions of TRL: its keys are input, output"):
        base_records(file, Asked(Reading("trl")))
    with pytest.raises(UserError, match="--map cannot have 'answers=x'"):
        base_records(file, Asked(Reading(fields="answers=x")))
    with pytest.raises(UserError, match=r"line 1 has no response: nothing stands at a.b"):
        base_records(file, Asked(Reading(fields="text=a.b,prompt=input")))


def test_a_row_may_hold_several_responses(tmp_path: Path) -> None:
    groups = [BASE[start : start + 8] for start in range(0, len(BASE), 8)]
    rows = [
        {"q": question(group[0].problem), "a": [r.text for r in group], "ok": [r.reward for r in group]}
        for group in groups
    ]
    file = writers.lines(tmp_path / "mine.jsonl", rows)
    records = base_records(file, Asked(Reading(fields="text=a,prompt=q,reward=ok")))
    assert [(r.text, r.sample, r.reason) for r in records] == [(r.text, r.sample, r.reason) for r in BASE]
    rows[3]["ok"] = [1.0]
    with pytest.raises(UserError, match="line 4: reward holds 1 values for 8 responses"):
        base_records(writers.lines(file, rows), Asked(Reading(fields="text=a,prompt=q,reward=ok")))


def test_byte_order_marks_line_ends_and_huge_fields_are_read(tmp_path: Path) -> None:
    rows = writers.verl_rows(BASE)
    rows[2]["output"] = "x" * 3_000_000 + rows[2]["output"]
    text = "\ufeff" + "\r\n".join(json.dumps(row) for row in rows)
    (tmp_path / "0.jsonl").write_bytes(text.encode())
    records = base_records(tmp_path / "0.jsonl", Asked(task=written_task(tmp_path)))
    assert [r.reason for r in records] == [r.reason for r in BASE]


def test_what_another_grader_calls_so_is_no_word_of_tiltlabs(tmp_path: Path) -> None:
    odd = {"complete": 0.5, "tokens": "many", "logp": 3.0, "ids": [1], "problem": {}}
    rows = [row | odd for row in writers.verl_rows(BASE)]
    file = writers.lines(tmp_path / "0.jsonl", rows)
    plain = base_records(writers.verl(BASE, tmp_path / "plain"), Asked(task=written_task(tmp_path)))
    assert base_records(file, Asked(task=written_task(tmp_path))) == plain


def test_records_of_tiltlab_and_models_are_told_from_other_files(tmp_path: Path) -> None:
    write_records(tmp_path / "own" / "records.jsonl", BASE)
    file = writers.verl(BASE, tmp_path / "verl")
    assert is_own(tmp_path / "own")
    assert is_own(tmp_path / "own/records.jsonl")
    assert not is_own(file)
    assert are_responses(file)
    assert are_responses(tmp_path / "verl")
    (tmp_path / "verl" / "config.json").write_text("{}", encoding="utf-8")
    assert not are_responses(tmp_path / "verl")  # a model
    assert not are_responses(Path("Qwen/Qwen2.5-0.5B"))
    assert are_responses(file.rename(tmp_path / "dump.txt"))
    (tmp_path / "model.gguf").touch()
    assert not are_responses(tmp_path / "model.gguf")
    file = (tmp_path / "dump.txt").rename(tmp_path / "0.jsonl")
    plain = writers.plain(BASE, tmp_path)
    for reading, other in ((Reading(), file), (Reading(fields=writers.FIELDS), plain)):
        mixed = from_files(tmp_path / "own", other, asked=Asked(reading, written_task(tmp_path)))
        assert mixed.base == [replace(r, ref_logp=r.logp) for r in BASE]
    assert [r.text for r in mixed.tuned] == [r.text for r in BASE]


def test_run_folders_of_tiltlab_are_named_and_not_read_as_something_else(tmp_path: Path) -> None:
    write_records(tmp_path / "run/base/records.jsonl", BASE)
    with pytest.raises(UserError, match=r"records of tiltlab's own; name the folder that they are in: .*base"):
        base_records(tmp_path / "run")
    (tmp_path / "run/study.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="is a run folder of tiltlab"):
        base_records(tmp_path / "run")


def test_a_tokenizer_beside_rollouts_makes_no_model_of_them(tmp_path: Path) -> None:
    file = writers.open_instruct(drawn("only the format learnt")[0], tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    assert are_responses(file.parent)
    (tmp_path / "config.json").write_text("{}")
    assert not are_responses(file.parent)


def test_log_probabilities_of_fewer_tokens_than_were_drawn_are_not_a_response_s(tmp_path: Path) -> None:
    """As of a chat whose end, or whose thoughts, the server leaves out of them."""
    records = [r for r in BASE[:8] if r.tokens > 1]
    rows, samples = writers.openai_rows(records), [writers.inspect_sample(r) for r in records]
    body, output = rows[0]["response"]["body"], samples[0]["output"]
    for answer in (body, output):
        del answer["choices"][0]["logprobs"]["content"][-1]
    log = {**writers.inspect_log([]), "samples": samples}
    (tmp_path / "log.json").write_text(json.dumps(log))
    for file in (writers.lines(tmp_path / "output.jsonl", rows), tmp_path / "log.json"):
        read = read_samples(file, Reading(), "last", lambda _: None)
        assert [isnan(sample.logp) for sample in read] == [True] + [False] * (len(records) - 1)


def test_the_split_that_has_most_of_the_prompts_is_theirs(tmp_path: Path) -> None:
    from tiltlab.config.tasks import load_task

    rows = [{"id": r, "problem": question(r), "answer": str(gold(r))} for r in dict.fromkeys(r.problem for r in BASE)]
    test, train = writers.lines(tmp_path / "test.jsonl", rows[:1]), writers.lines(tmp_path / "train.jsonl", rows)
    task = load_task(f"{{task: data, grader: number, test: {test}, train: {train}}}")
    assert len(base_records(writers.lines(tmp_path / "0.jsonl", writers.verl_rows(BASE)), Asked(task=task))) == len(
        BASE
    )
