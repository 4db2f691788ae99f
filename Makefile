# The commands of this project; `make` alone lists them.
PYTHON ?= $(or $(shell command -v python3.11),python3)
DATA ?= company
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo check fast test coverage migrations lint format up down proof gpu clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## virtual environment, pinned packages, base model (once; four minutes; ACCELERATOR=cuda)
	@command -v $(PYTHON) >/dev/null || { echo "set-up: This machine lacks Python 3.11."; exit 1; }
	@TAILOR_ACCELERATOR=$(ACCELERATOR) $(PYTHON) -m deploy.local.setup

demo: setup ## train an example's model and ask it (DATA=company|stdlib|changelog|faq-ja SEED=1 MODEL=…)
	@.venv/bin/tailor demo --data $(DATA) --seed $(SEED) $(if $(MODEL),--model $(MODEL))

check: setup ## lint, types and the fast tests, side by side
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint fast

fast: setup ## the tests that start no server, engine or trainer
	@.venv/bin/python -m pytest -m fast --numprocesses 2 --dist loadscope --timeout 20 $(ARGS)

test: setup ## the whole suite on real parts, fault tests last (ARGS=… for pytest)
	@.venv/bin/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(ARGS)

coverage: setup ## the whole suite, its branches counted; fails under the floor in pyproject.toml
	@.venv/bin/coverage erase
	@.venv/bin/coverage run -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(ARGS)
	@.venv/bin/coverage combine --quiet
	@.venv/bin/coverage report

migrations: setup ## the schema from nothing and from each earlier revision, on a real PostgreSQL
	@.venv/bin/python -m pytest tests/shared/db $(ARGS)

lint: setup ## ruff and mypy; the import rules are a test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: setup ## let ruff rewrite what it can
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

up: setup ## start the stack in .tailor/ and show its logs until Ctrl-C
	@.venv/bin/tailor up

down: setup ## stop the stack in .tailor/
	@.venv/bin/tailor down

proof: setup ## the long versions of tests: seeds, full counts (results: docs/proof.md)
	@.venv/bin/python -m pytest -m proof $(ARGS)

gpu: ## on a machine with an NVIDIA GPU: proof and benchmark of a model of a billion weights
	@$(MAKE) --no-print-directory setup ACCELERATOR=cuda
	@REQUIRE_GPU=1 .venv/bin/python -m pytest tests/gpu $(ARGS)
	@.venv/bin/python -m benchmarks.gpu

clean: ## remove caches; the environment, the models and the data stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info .coverage .coverage.*
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
