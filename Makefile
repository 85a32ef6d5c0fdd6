# make train   distil the student of options/distill_derain.yml
# make test    run the tests
# Both make .venv first, and install into it once. `make PYTHON=python3.11 test` chooses the interpreter, and
# `make TORCH_INDEX=<url> test` the index that PyTorch's wheels come from (README.md, Installation).

PYTHON ?=
TORCH_INDEX ?=
TORCH ?= torch==2.13.0 torchvision==0.28.0
OPT ?= options/distill_derain.yml
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install
INSTALLED := $(VENV)/installed

.PHONY: train test docs lint format install clean distclean check-python

train: $(INSTALLED)
	$(BIN)/basicsr train -opt $(OPT)

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

# a site under docs/_build/html; warnings, broken links among them, are errors
docs: $(INSTALLED)
	$(PIP) --no-build-isolation --editable '.[dev,docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

install: $(INSTALLED)

# The order matters: torch and torchvision as the exact pair they were built as; then what basicsr's setup.py imports; then
# basicsr without build isolation, which would fetch another torch, and without its requirements, which hold tb-nightly.
$(INSTALLED): setup.py pyproject.toml | check-python
	@if [ -e $(BIN)/python ]; then sh tools/find_python.sh $(BIN)/python >/dev/null; else \
	  python=$$(sh tools/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV); fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) 'setuptools>=77' wheel cython numpy
	$(PIP) --no-build-isolation --no-deps basicsr==1.4.2
	$(PIP) --no-build-isolation --editable '.[dev,export]'
	@touch $@

# A Python asked for by name is looked at even when .venv is there already.
check-python:
	@[ -z '$(PYTHON)' ] || sh tools/find_python.sh $(PYTHON) >/dev/null

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find kd_plugins tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
