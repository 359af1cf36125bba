# The two commands of the README, and those of a developer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= all
ARMS ?= [identity, reinhard, macenko, vahadane, operator, render_1, trained, delivered]
IMAGES ?= $(or $(STAINFUSER_SHARED_DATA),../shared/data)

.PHONY: demo benchmark-slides benchmark-model benchmark-cohort test test-fast test-damage lint format environment environment-slurm

## demo: set up what is missing, then run the whole chain on the synthetic cohort; the shipped model
## is also trained further (workflow/demo.yaml), and the arms of the evaluation are those that take
## seconds (ARMS=all: every one)
demo: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) all --configfile workflow/demo.yaml --config evaluate='{arms: $(ARMS)}'
	@echo
	@echo "Report:            results/report/index.html"
	@echo "Normalised slides: results/normalized/demo/"

## benchmark-slides: a large slide copied, normalised, and by classical methods; nothing else should run
benchmark-slides: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) --forcerun benchmark_slides -- benchmark_slides
	@column -s, -t results/benchmarks/slides.csv 2>/dev/null || cat results/benchmarks/slides.csv

## benchmark-model: the model's colour, structure and speed beside classical methods; IMAGES is the
## folder of the real images listed in scripts/stainfuser/pretrained/data_split.csv
benchmark-model: $(VENV)/.installed
	$(BIN)/snakemake --cores $(CORES) --forcerun benchmark_model --config operator_head='{images: $(IMAGES)}' -- benchmark_model
	@cat results/benchmarks/model.md

## benchmark-cohort: how long Snakemake plans 10,000 slides, new and probed
benchmark-cohort: $(VENV)/.installed
	$(BIN)/python tests/scale/benchmark_cohort.py --slides 10000

## test: every test, the end-to-end runs of the real workflow included
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

## test-fast: the unit tests alone
test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest tests/unit tests/stages tests/test_architecture.py

## test-damage: 200 damaged copies of slides through the chain (minutes)
test-damage: $(VENV)/.installed-dev
	STAINFUSER_DAMAGED_COPIES=200 $(BIN)/python -m pytest tests/stages/test_damaged_slides.py -s

## lint: what the continuous integration checks
lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

## format: rewrite the code in the house style
format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

environment: $(VENV)/.installed

## environment-slurm: the environment with Snakemake's plugin for Slurm
environment-slurm: $(VENV)/.installed envs/requirements-slurm.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-slurm.txt -c envs/constraints.txt

$(VENV)/.installed: envs/requirements.txt envs/constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt -c envs/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed envs/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt -c envs/constraints.txt
	touch $@
