# `make demo` and `make test` each set up everything they need: Python is all that must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= auto

.PHONY: demo test integration lint types layers format lock agent wheel man image clean setup

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/aggregator demo

test: setup lint types layers
	$(BIN)/python -m pytest -n $(JOBS)

# Real VPN daemons in network namespaces: as root, with /dev/net/tun; elsewhere they are skipped. A
# scheduler under faults, which needs to mount, and a simulated year, which needs nothing.
# DAEMONS="not softether" leaves some out.
integration: setup
	tests/integration/install-packages
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.integration
	$(BIN)/python -m pytest -n $(JOBS) -m integration $(if $(DAEMONS),-k "$(DAEMONS)") tests/integration tests/simulation

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

layers: setup
	$(BIN)/lint-imports

# One file for a VPN server that has only Python, without duckdb and pyarrow.
agent: setup
	BIN=$(BIN) deploy/build-agent

# The same source gives the same bytes; the date in it is that of the last commit.
wheel: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
wheel: setup
	rm -f dist/*.whl
	$(BIN)/python -m hatchling build --target wheel --directory dist

# build/man/*.1, a page a command, from its --help.
man: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1577836800)
man: setup
	$(BIN)/python deploy/build-man build/man

# A container image with that wheel, by podman, buildah or docker.
ENGINE ?= podman
image: wheel
	$(ENGINE) build --tag usage-aggregator --file deploy/Containerfile .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	uv pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
	  --no-annotate --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" pyproject.toml requirements.build -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --extra integration --generate-hashes \
	  --no-annotate --no-emit-index-url --no-emit-find-links --constraint requirements.lock \
	  --custom-compile-command "make lock" pyproject.toml -o requirements.integration
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-emit-index-url --no-emit-find-links --constraint requirements.lock \
	  --custom-compile-command "make lock" deploy/agent.requirements -o deploy/agent.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-emit-index-url --no-emit-find-links --constraint requirements.lock \
	  --custom-compile-command "make lock" pyproject.toml -o deploy/aggregator.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
