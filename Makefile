# Every target does its own set-up: `make demo` and `make test` work right after a clone.
# Needed: Rust (rustup), a C++ compiler, Python's pip. Nothing is installed outside this folder.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# rustup puts cargo here; a shell that was open before does not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# The workspace is always built as one: `-p` alone would choose other features of shared
# dependencies and compile DataFusion again.
CARGO ?= cargo

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: build ## crawl, clean, deduplicate, tokenize, train and ask: a few minutes, no network
	$(CARGO) run --quiet --locked --bin gristmill -- demo

# Property tests draw the same cases on every run, so a commit passes or fails; unset it to look for new ones.
export PROPTEST_RNG_SEED ?= 42

.PHONY: test
test: lint doc licences build ## everything that must hold before a change goes in
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) test --workspace --locked --doc; \
	  $(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else \
	  echo "cargo-nextest is not installed: using cargo test"; \
	  $(CARGO) test --workspace --locked --no-fail-fast; \
	fi

.PHONY: lint
lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; \
	else echo "shellcheck is not installed: shell scripts were not checked"; fi

.PHONY: doc
doc: setup ## the crates' reference pages, under target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

.PHONY: licences
licences:
	if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --locked --all-features check licenses bans sources; \
	else echo "cargo-deny is not installed: licences, bans and sources were not checked"; fi

.PHONY: build
build: setup ## both commands and all crates, in the profile that the demo and the tests use
	$(CARGO) build --workspace --locked

.PHONY: install
install: setup ## gristmill and gristmill-train, optimised, into cargo's bin folder
	$(CARGO) install --locked --path queries
	$(CARGO) install --locked --path trainer

.PHONY: setup
setup: ## libtorch for the trainer, once, into .libtorch
	@scripts/setup-libtorch.sh cpu

.PHONY: cuda
cuda: ## the same with CUDA's libraries
	@scripts/setup-libtorch.sh cuda

# The server's clients and its dashboard need packages of Python, and the latter Chromium: `make test` does without.
VENV := .venv
AXE := $(VENV)/axe-core-4.14.1/package/axe.min.js
CHROMIUM ?= $(shell command -v chromium || command -v google-chrome || echo chromium)

$(VENV)/%-installed: Makefile
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(PACKAGES)
	touch $@

$(VENV)/clients-installed: PACKAGES = adbc-driver-flightsql pyarrow pandas polars openapi-spec-validator
$(VENV)/dashboard-installed: PACKAGES = playwright

.PHONY: clients
clients: build $(VENV)/clients-installed ## ask a server over the demo's corpus with ADBC, pandas and polars
	scripts/with-server.sh demo/corpus $(VENV)/bin/python scripts/clients.py

.PHONY: dashboard
dashboard: build $(VENV)/dashboard-installed $(AXE) ## open every view in headless Chromium, check it, make the screenshots
	scripts/with-server.sh demo/corpus $(VENV)/bin/python scripts/dashboard.py {} $(AXE) $(CHROMIUM) target/screenshots

$(AXE):
	mkdir -p $(VENV)/axe-core-4.14.1
	cd $(VENV)/axe-core-4.14.1 && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz

$(VENV)/s3-installed: PACKAGES = 'moto[server]==5.2.5'

.PHONY: s3
s3: build $(VENV)/s3-installed ## the tests of object stores against an S3 server on loopback, in Python
	$(VENV)/bin/python scripts/with-s3.py $(CARGO) nextest run --workspace --locked --no-capture -E 'test(object_store)'

.PHONY: interop
interop: build ## exports, imports and open folders against the other libraries themselves (several GB of Python)
	scripts/interop.sh interop

.PHONY: python
python: build ## the Python package, built and compared with the Rust reader (the same Python environment)
	scripts/interop.sh python

.PHONY: clean-demo
clean-demo: ## remove what the demo made
	rm -rf demo
