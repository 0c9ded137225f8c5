"""The hub, without the hub: `load_dataset` on folders in its layout, and in place of it a stand-in."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from tests.tasks.files import written
from tiltlab.config.tasks import load_task
from tiltlab.datasets.hub import Hub, hub_rows
from tiltlab.errors import UserError
from tiltlab.tasks import dataset as data
from tiltlab.tasks.dataset import Data
from tiltlab.types import Split

ROWS = [{"question": f"Question {i}?", "answer": f"{i}+1=<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"} for i in range(6)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def folder(path: Path) -> str:
    written(path / "data" / "train-00000-of-00001.parquet", list(ROWS))
    written(path / "data" / "test-00000-of-00001.parquet", [{"question": "question 0", "answer": "#### 1"}])
    return str(path)


def test_a_folder_in_the_hubs_layout_is_a_data_set(tmp_path: Path) -> None:
    hub = folder(tmp_path / "gsm8k")
    task = load_task(f"{{task: gsm8k, train: {{hub: {hub}}}, test: {{hub: {hub}, split: test}}, validation: 2}}")
    assert [p.answer for p in task.problems("test")] == ["1"]
    learnt = [p for split in ("train", "validation") for p in task.problems(split)]  # type: ignore[arg-type]
    assert sorted(p.answer for p in learnt) == ["2", "3", "4", "5", "6"]  # question 0 stands in test
    assert learnt[0].id.startswith(f"{hub} train row ")


def test_cells_are_not_decoded(tmp_path: Path) -> None:
    """An image in a row is bytes of whoever made the data set; no decoder sees them."""
    row = {"question": "Q", "image": {"bytes": b"no image", "path": None}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = datasets.Features({"question": datasets.Value("string"), "image": datasets.Image()})
    table = datasets.Dataset(
        pa.Table.from_pylist([row], pa.schema([("question", pa.string()), ("image", image)])),
        info=datasets.DatasetInfo(features=features),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_dataset", lambda *_, **__: table)
        assert [found for _, found in hub_rows(Hub("a/b"))] == [row]


CALLS = [
    ("math", "train", [("DigitalLearningGmbH/MATH-lighteval", None, "train")]),
    ("math", "test", [("DigitalLearningGmbH/MATH-lighteval", None, "test")]),
    ("math500", "test", [("HuggingFaceH4/MATH-500", None, "test")]),
    ("minerva", "test", [("math-ai/minervamath", None, "test")]),
    ("gsm8k", "train", [("openai/gsm8k", "main", "train")]),
    ("gsm8k", "test", [("openai/gsm8k", "main", "test")]),
    ("aime24", "test", [("HuggingFaceH4/aime_2024", None, "train")]),
    ("aime25", "test", [("opencompass/AIME2025", name, "test") for name in ("AIME2025-I", "AIME2025-II")]),
    ("hmmt_feb25", "test", [("MathArena/hmmt_feb_2025", None, "train")]),
    ("deepscaler", "train", [("agentica-project/DeepScaleR-Preview-Dataset", None, "train")]),
    ("olympiadbench", "test", [("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train")]),
]


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(path: str, name: str | None = None, *, split: str, revision: str | None) -> datasets.Dataset:
        calls.append((path, name, split, revision))
        rows = [dict.fromkeys(("problem", "question", "answer"), f"{path} {name} {split} {i}") for i in range(3)]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for cached in (data._read, data._learning):
        cached.cache_clear()
    return calls


@pytest.mark.parametrize(("name", "split", "expected"), CALLS)
@pytest.mark.parametrize("revision", [None, "abc123"])
def test_every_set_is_asked_for_by_id_config_split_and_revision(
    monkeypatch: pytest.MonkeyPatch, name: Any, split: Split, expected: list[Any], revision: str | None
) -> None:
    calls = stand_in(monkeypatch)
    found = Data(name, validation=1, revision=revision, test="gsm8k" if name == "deepscaler" else None).problems(split)
    asked = [call for call in calls if call[0] == expected[0][0] and call[2] == expected[0][2]]
    assert asked == [(*call, revision) for call in expected]
    assert len(found) == (3 * len(expected) if split == "test" else 2)


def test_a_set_may_learn_from_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's protocols: MATH for MATH-500, DeepScaleR for AIME 2024."""
    calls = stand_in(monkeypatch)
    assert len(Data("aime24", train="deepscaler", validation=1, revision="r").problems("train")) == 2
    assert sorted(call[:4:3] for call in calls) == [
        ("HuggingFaceH4/aime_2024", "r"),
        ("agentica-project/DeepScaleR-Preview-Dataset", None),
    ]


def test_an_id_alone_means_the_split_of_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch)
    Data("data", "me/mine", "me/mine", validation=1, revision="r").problems("train")
    assert sorted(calls) == [("me/mine", None, "test", "r"), ("me/mine", None, "train", "r")]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Hub("nobody/nothing"), "data set nobody/nothing train cannot be loaded .*HF_HUB_OFFLINE, or give a file"),
        (Hub("{here}", split="dev"), "dev cannot be loaded .*split"),
        (Hub("{here}", "other"), "other train cannot be loaded .*BuilderConfig"),
        (Hub("{here}/nowhere"), "nowhere train cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(tmp_path: Path, source: Hub, message: str) -> None:
    here = folder(tmp_path / "d")
    with pytest.raises(UserError, match=message) as caught:
        list(hub_rows(Hub(source.hub.format(here=here), source.config, source.split)))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'train row 1 has no answer: column "final" is missing or empty .its columns'):
        Data("data", train=Hub(folder(tmp_path / "d")), columns={"question": "question", "answer": "final"}).problems(
            "train"
        )


def test_recipes_are_read_without_the_libraries_of_data() -> None:
    heavy = "{'datasets', 'pyarrow', 'pandas', 'reasoning_gym', 'math_verify', 'sympy'}"
    modules = "tiltlab.tasks.dataset, tiltlab.tasks.reasoning_gym"
    code = f"import sys, {modules}; assert not {heavy} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
