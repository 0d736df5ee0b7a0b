# `make serve` and `make test` need nothing but python3 (3.11 or newer) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# More than there are cores: a third of the time, a test waits.
WORKERS ?= 3
CLIENTS := $(addprefix tests/live/,test_client_libraries.py test_clients.py test_libreoffice.py test_suites.py)
# A worker that has no test left takes some of the others': the slow ones lie next to each other.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist worksteal

# The tests start hundreds of servers: each would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test test-slow test-all test-kills fuzz bench lint format check wheel clean

serve: $(VENV)/installed files
	$(BIN)/davfusion serve ./files --port 8080

test: $(VENV)/developing
	tests/install-clients
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/developing
	tests/install-clients
	$(PYTEST) -m slow

test-all: $(VENV)/developing
	tests/install-clients
	$(PYTEST)

# 200 times kill -9 under load, against S3; about ten minutes.
test-kills: $(VENV)/developing
	DAVFUSION_KILLS=200 $(BIN)/pytest tests/live/test_kills.py

# 20,000 inputs for each parser of what comes from outside; about twenty minutes.
fuzz: $(VENV)/developing
	DAVFUSION_FUZZ=20000 $(PYTEST) tests/fuzz -o timeout=0

# One client at work over S3, such as client-cadaver, client-davfs2, client-gio, client-libreoffice.
client-%: $(VENV)/developing
	$(BIN)/pytest $(CLIENTS) -k "$*"

client-joplin: $(BIN)/joplin

# Without it, the test of Joplin is left out, in CI too.
$(BIN)/joplin: tests/install-joplin | $(BIN)/python
	timeout -k 10 240 $< $(VENV) || echo "LEFT OUT: the test that needs joplin: $< has failed" >&2

# Against rclone and stock wsgidav, into docs/performance.md; about twenty minutes, on a machine that
# does nothing else. BENCH="--only s3/list --reps 1" passes options.
bench: $(VENV)/developing
	$(BIN)/python -m benchmarks --docs docs --json docs/performance/results.json $(BENCH)

lint: $(VENV)/developing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

format: $(VENV)/developing
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# What CI runs.
check:
	$(MAKE) -j 2 lint $(BIN)/joplin
	$(MAKE) -j 2 test-all wheel

wheel: $(VENV)/developing
	tests/check-wheel $(PYTHON)

files:
	mkdir files
	cp config/welcome.txt files/Welcome.txt

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python3 is too old: davfusion needs 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
