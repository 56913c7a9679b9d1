# make run and make test are all there is; both set up .venv first, and only when something changed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test faults clean

run: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/danube-sweep

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo 'danube_sweep needs Python 3.11 or 3.12; name one: make PYTHON=/path/to/python3.11'; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Kills a sweep's processes at random, many times, and holds what is left against an undisturbed sweep: 15 minutes.
faults: $(READY)
	$(BIN)/python benchmarks/faults.py

clean:
	rm -rf .venv
