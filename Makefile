# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
# Python may keep what it has compiled, whatever the machine says: every test that starts the
# program would compile it again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help quickstart setup test fast lint learn bench campaign-parallel gpu-check docs schedulers clean
help:
	@echo "quickstart  set up, train a GPT from nothing, fine-tune it, evaluate it (four to ten minutes after the set-up)"
	@echo "setup       make the environment"
	@echo "test        set up and run every test;  fast: those that take seconds;  learn: those that train on real data"
	@echo "lint        format check, lint, strict types;  bench: speed, side by side;  docs: run every snippet"
	@echo "schedulers  install what job files are checked against, in an environment of its own"
	@echo "campaign-parallel  kill, stop and restart runs on several processes, over and over (hours)"
	@echo "gpu-check   try everything on a GPU in at most eight minutes; sets nothing up and needs no network"

setup: $(READY)
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $(READY)

quickstart: setup
	$(BIN)/groundup train recipes/quickstart/pretrain.yaml recipes/quickstart/finetune.yaml
	$(BIN)/groundup evaluate runs/quickstart-pretrain runs/quickstart-finetune --limit 40

$(PEERS): $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,parity]'
	touch $(PEERS)

test: $(PEERS)
	$(BIN)/pytest -m 'not slow' -n 2 --dist loadgroup
	$(BIN)/pytest -m slow -n 2 --dist loadgroup

fast: setup
	$(BIN)/pytest -m 'not slow' -n 2 --dist loadgroup

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

learn: setup
	$(BIN)/pytest tests/learn

docs: setup
	$(BIN)/pytest tests/test_docs.py

# Their packages need other versions of what groundup needs.
schedulers:
	$(PYTHON) -m venv .schedulers
	.schedulers/bin/pip install --quiet skypilot==0.14.1 kubernetes-validate==1.37.0 kubeflow-training==1.9.4

bench: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,bench]'
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/tokenize_rate.py
	$(BIN)/python benchmarks/startup.py

# A short part of it: make campaign-parallel SHARE=0.1
SHARE ?= 1.0
campaign-parallel: setup
	$(BIN)/python scripts/campaign_parallel.py --share $(SHARE)

# With the python that has PyTorch for CUDA: make gpu-check PYTHON=python
gpu-check:
	$(PYTHON) scripts/gpu_check.py

clean:
	rm -rf $(VENV) .schedulers .pytest_cache .mypy_cache .ruff_cache
