# make run and make test are all there is; both set up .venv first, and only when something changed.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
# Nothing is compiled in advance: a third of the packages' files are ever imported, and the first import writes them down.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test set-up types suite test-full browser clock siege mutate clean

run: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/danube-sweep

test: set-up
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 types suite

# Packages are installed while apt-get downloads.
set-up:
	@$(MAKE) --no-print-directory --jobs 2 $(READY) browser

types: $(READY)
	$(BIN)/mypy

suite: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 4

# Every case of the products of which `make test` runs a part (tests/covering.py): adapters, heads, shapes, optimizers.
test-full: $(READY) browser clock
	DANUBE_SWEEP_TEST_FULL=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 4

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || \
	  { echo 'danube_sweep needs Python 3.11 or 3.12; name one: make PYTHON=/path/to/python3.11'; exit 2; }
	$(PYTHON) -m venv .venv
	@$(BIN)/python tests/install.py
	@touch $@

# The report's page is tested in Debian's Chromium. Where it can be neither found nor installed, those tests are skipped.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get -qq update && \
	    apt-get -qq install -y --no-install-recommends chromium chromium-driver; } >/dev/null 2>&1 || \
	  echo 'no Chromium here and no way to install it: the tests that draw in a browser are skipped'

# make test-full and make siege make a clock jump with Debian's libfaketime, which is found or installed in the same way.
clock:
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get -qq update && \
	    apt-get -qq install -y --no-install-recommends libfaketime; } >/dev/null 2>&1 || \
	  echo 'no libfaketime here and no way to install it: what needs a clock that jumps is skipped'

# Kills, damaged files and hostile words against everything, for an hour. SCALE=10 is ten times as much, in ten hours.
SCALE ?= 1
siege: $(READY) clock
	$(BIN)/python benchmarks/siege --scale $(SCALE)

# Puts one-line faults into a copy of the package, one by one, and shows which test catches each: 10 minutes.
mutate: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutate.py

clean:
	rm -rf .venv
