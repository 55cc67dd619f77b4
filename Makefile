PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run paper test lint format coverage references bench advisories docs clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run: .venv/.run  ## install into .venv, and run one cell of the grid on the embedded benchmark
	$(BIN)/python -m canonxai method=lrp_eps model=resnet18 canonize=true

paper: .venv/.run  ## the whole embedded study, 52 cells, and its report in multirun/paper/report
	$(BIN)/python -m canonxai -m experiment=paper hydra/launcher=processes hydra.launcher.n_jobs=2 hydra.launcher.batch_size=2

test: .venv/.test  ## install into .venv, and run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile

lint: .venv/.test  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.test  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: .venv/.test  ## canonize every network of torchvision and several of timm, and write docs/coverage.md
	$(BIN)/python -m canonxai.coverage --output docs/coverage.md

references: .venv/.test  ## compare methods, metrics and statistics with others', and write docs/references.md
	$(BIN)/python -m tests.reference

bench: .venv/.test  ## measure speed and memory beside peers, on an idle machine, into benchmarks/results
	$(BIN)/python -m benchmarks

advisories: .venv/.test  ## look for known vulnerabilities of what is installed, before a release; asks a database on the internet
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[advisories]'
	$(BIN)/python -m pip_audit --skip-editable --vulnerability-service osv # PyPI's passes over what it does not know

docs:  ## put the figures of the README's studies, computed before, into the README
	$(BIN)/python -m canonxai.report.readme README.md multirun/paper/report multirun/architectures/report multirun/threshold/report

clean:  ## remove .venv and caches, but no results
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

# A stamp each for what users and what developers need: installing again is quick, and only after pyproject.toml changed.
.venv/.run: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/.test: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch .venv/.run $@
