# One target per intent. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:

CACHE := $(or $(CUTOFF_CACHE),$(HOME)/.cache/cutoff)
BIN := .venv/bin
DEMO ?= demo-world
FACTS ?= 160
SEED ?= 1

.PHONY: help
help: ## Lists the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Makes .venv and builds the pinned llama.cpp; does nothing when both are current
	@deploy/host/setup.sh

.PHONY: demo
demo: setup ## Runs the whole pipeline on a made-up world, to a GGUF in demo-world/models
	@$(BIN)/cutoff demo --facts $(FACTS) --seed $(SEED) --out $(DEMO) --control
	@$(BIN)/cutoff run $(DEMO)/job.yaml --datasets $(DEMO)/datasets --artifacts $(DEMO)/output --models $(DEMO)/models

.PHONY: demo-containers
demo-containers: setup ## The same in containers; builds the images if they lack, leaves the system running
	@deploy/demo-containers.sh $(DEMO) $(FACTS) $(SEED)

.PHONY: images
images: ## Builds the CPU images (docker/docker-bake.hcl has the others)
	@docker compose build

.PHONY: test
test: setup ## Runs every test but those of the images; sweeps kill at every sixth transition
	@$(BIN)/python -m pytest --ignore tests/containers

.PHONY: test-faults
test-faults: setup ## Kills at every transition, fills disks, jumps clocks; prints the figures of docs/reliability.md
	@$(BIN)/python -m pytest tests/faults --every-transition

.PHONY: browser
browser: ## Installs Chromium (Debian, as root), in which tests open the report's page
	@command -v chromium-headless-shell chromium >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends chromium-headless-shell; }

.PHONY: test-containers
test-containers: setup ## Builds the CPU images, runs the composed system, tests both; needs a Docker engine
	@$(BIN)/python -m pytest tests/containers --ignore tests/containers/test_faults.py

.PHONY: test-faults-containers
test-faults-containers: setup ## Kills each container during a job, and cuts the network; after make test-containers
	@$(BIN)/python -m pytest tests/containers/test_faults.py

.PHONY: test-images-cuda
test-images-cuda: setup ## Builds the CUDA images of the four stages and imports their stack; no GPU needed
	@$(BIN)/python -m pytest tests/containers/cuda.py

.PHONY: lint
lint: setup ## ruff, mypy --strict, import-linter, buf
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@cd services && ../$(BIN)/mypy --config-file ../pyproject.toml  # elsewhere datasets/ hides the library of that name
	@$(BIN)/lint-imports
	@BUF_CACHE=$(CACHE)/buf protos/buf.sh lint

.PHONY: bench-run-start
bench-run-start: setup ## How long a run takes to start, from the forkserver and spawned
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.run_start

.PHONY: bench-train
bench-train: setup ## Training speed and memory against the document's recipe as written (about 25 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.train

.PHONY: bench-merge
bench-merge: setup ## Time and memory of a merge against peft's, and against copying (about 5 minutes, 14 GiB of disk)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.merge

.PHONY: bench-data
bench-data: setup ## Seconds and memory of checking and tokenizing 1,000 to 100,000 examples
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.data

.PHONY: bench-objectives
bench-objectives: setup ## What each training objective keeps and forgets on two demo worlds (about 20 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.objectives

.PHONY: bench-convert
bench-convert: setup ## Conversion of a 1 GB model against llama.cpp alone and the document's script (about 10 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.convert

.PHONY: bench-evaluate
bench-evaluate: setup ## Questions per second of each target against one by one, and the memory of 10,000 (about 5 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.evaluate

.PHONY: bench-hosts
bench-hosts: setup ## Fifty jobs on three simulated hosts: placement, utilisation, queue times (about 8 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.hosts

.PHONY: bench-containers
bench-containers: setup ## Start, memory at rest and job time of the composed system, against processes
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.containers

.PHONY: bench-coordinator
bench-coordinator: setup ## Overhead, submitting, listing, watching, idling, coming back (about 6 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.benchmarks.coordinator

.PHONY: protos
protos: setup ## Generates services/cutoff/v1 from protos/cutoff/v1
	@$(BIN)/python -m grpc_tools.protoc -I protos --python_out=services --pyi_out=services --grpc_python_out=services protos/cutoff/v1/*.proto

.PHONY: docs
docs: setup ## Generates docs/job.md, docs/metrics.md and the dashboards
	@$(BIN)/python -m cutoff.spec.document > docs/job.md
	@$(BIN)/python -m deploy.prometheus.metrics_page > docs/metrics.md
	@$(BIN)/python -m deploy.grafana.dashboards

.PHONY: report-pictures
report-pictures: setup ## Takes the pictures of the report's page in docs/pictures; after make demo and make browser
	@PYTHONPATH=. $(BIN)/python docs/pictures/make.py $(DEMO)

.PHONY: lock
lock: setup ## Pins what the images install, by hash
	@$(BIN)/python docker/lock.py

.PHONY: llama-cpp
llama-cpp: setup ## Builds the pinned llama.cpp (part of setup)

.PHONY: clean
clean: ## Removes what was made in the checkout; the cache under HOME stays
	rm -rf .venv $(DEMO) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache services/*.egg-info
