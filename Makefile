# Everything a fresh machine needs: `make run URL=https://…` and `make test`. Each target makes .venv first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
URL ?=
TIME ?= 600
ARGS ?=
PYTEST_ARGS ?=
# Hashes and versions alone: no address of an index, which each machine has its own of
LOCK = .venv-release/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  $(if $(UPGRADE),--upgrade)
BUILDER ?= $(firstword $(foreach name,podman docker buildah,$(if $(shell command -v $(name)),$(name))) podman)
BASE ?= python:3.13-slim
# what `make cover` wants tested to the last branch
FULLY_COVERED := $(addprefix crawler/fetch/,connection.py pool.py http1/wire.py net/address.py net/tls.py)

.DELETE_ON_ERROR:
.PHONY: help run test quick lint format generated docs pictures venv dev systemd bench prove dist deb image sbom release lock fuzz cover clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

venv: $(VENV)/.run  ## .venv with what the crawler needs, from requirements.lock
	@$(BIN)/python -m compileall -q crawler  # a service may not write beside it, and would compile it at each start

dev: $(VENV)/.dev  ## the same with what the tests need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "crawler needs Python 3.11 or later; set PYTHON=…"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "python3 -m venv cannot work here: install the package python3-venv (apt-get install python3-venv)"; exit 2; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python requirements.lock requirements-build.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	  -r requirements.lock -r requirements-build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: export CRAWL_URL = $(value URL)
run: $(VENV)/.run  ## crawl URL with a progress view; without URL, a small site served here over TLS
ifeq ($(strip $(URL)),)
	@$(BIN)/python -m crawler.demo $(ARGS)
else
	@$(BIN)/python -m crawler crawl $(ARGS) -- "$$CRAWL_URL"
endif

test: $(VENV)/.dev  ## lint, then every test but the large counts
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not prove and not systemd" $(PYTEST_ARGS)

quick: lint  ## lint and unit tests, under a minute
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not e2e and not prove" tests/unit tests/contract $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >/tmp/crawler-imports.$$$$ 2>&1 || { cat /tmp/crawler-imports.$$$$; rm -f /tmp/crawler-imports.$$$$; exit 1; }; rm -f /tmp/crawler-imports.$$$$

format: $(VENV)/.dev  ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(VENV)/.run  ## sdist and wheel, into dist/
	$(BIN)/python -m hatchling build -t sdist -t wheel -d dist

deb: dist  ## the Debian package, into dist/; for the Python and the architecture of this machine
	release/deb/build dist/crawlerd-*.whl dist

image:  ## the container image, by BUILDER: podman, docker, or buildah as it is found
	$(BUILDER) build -f Containerfile --build-arg BASE=$(BASE) -t crawlerd:latest $(if $(findstring docker,$(BUILDER)),,--format docker) .

sbom: dist .venv-release/.made  ## the bill of materials of what is installed, CycloneDX JSON, into dist/
	release/sbom dist/crawlerd-*.whl dist/crawlerd.cdx.json

release: $(VENV)/.dev .venv-release/.made  ## check that this commit can be released, test it, build it twice, into dist/
	release/release dist $(if $(UNTESTED),--untested)

generated: $(VENV)/.dev  ## the files that are made of the code: example configuration, schema, man page, unit of an instance
	$(BIN)/python -m crawler config show --default > config/crawler.toml
	$(BIN)/python -m crawler config schema > config/crawler.schema.json
	for unit in crawler@.service crawler-again@.service; do $(BIN)/python -m crawler.cli.service.planned_files $$unit > systemd/$$unit; done
	$(BIN)/python -m crawler.cli.manuals > docs/crawler.1
	PYTHONPATH=. $(BIN)/python docs/keys.py > docs/reference/keys.md

pictures: $(VENV)/.dev  ## the README's pictures, of a real crawl; needs tmux and chromium
	PYTHONPATH=. $(BIN)/python docs/pictures/make.py

.venv-docs/.made: requirements-docs.lock
	@rm -rf .venv-docs
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	@touch $@

docs: .venv-docs/.made  ## a site of docs/ in dist/docs, to be read without a network; a link that leads nowhere is an error
	.venv-docs/bin/python -m sphinx -q --fail-on-warning --keep-going docs dist/docs
	@echo "dist/docs/index.html"
	$(BIN)/python release/licenses.py > docs/LICENSES.md

# What makes a release lives apart: twine and uv need libraries of their own.
.venv-release/.made: requirements-release.lock
	@rm -rf .venv-release
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-release.lock
	@touch $@

lock: .venv-release/.made  ## the lock files from pyproject.toml, versions kept where they fit; UPGRADE=1: the newest
	$(LOCK) -o requirements.lock pyproject.toml
	$(LOCK) -c requirements.lock --extra postgresql -o requirements-postgresql.lock pyproject.toml
	$(LOCK) -c requirements.lock --group pyproject.toml:build -o requirements-build.lock
	$(LOCK) -c requirements.lock -c requirements-build.lock --group build --group dev -o requirements-dev.lock pyproject.toml
	$(LOCK) --group pyproject.toml:release -o requirements-release.lock
	$(LOCK) --group pyproject.toml:docs -o requirements-docs.lock

# The peers' libraries live apart: theirs must not decide what ours are.
.venv-bench/.made: requirements-bench.lock
	@rm -rf .venv-bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	@touch $@

bench: $(VENV)/.dev $(if $(QUICK),,.venv-bench/.made)  ## measure it beside its peers; QUICK=1: wget2 alone
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

prove: $(VENV)/.dev  ## the large counts: crash, fuzz, soak
	$(BIN)/python -m pytest -m prove --timeout 3600 $(PYTEST_ARGS)

systemd: $(VENV)/.dev  ## the service under a real systemd in namespaces of its own; needs root, and debootstrap once
	$(BIN)/python -m pytest -m systemd tests/systemd $(PYTEST_ARGS)

fuzz: $(VENV)/.dev  ## the fuzzers, TIME seconds each; what they found interesting is kept in .fuzz/
	$(BIN)/python -m tests.fuzz wire $(TIME) --corpus .fuzz/wire --artifacts .fuzz/crashes
	$(BIN)/python -m tests.fuzz decode $(TIME) --corpus .fuzz/decode --artifacts .fuzz/crashes

cover: $(VENV)/.dev  ## branch coverage of the HTTP client by its own tests; fails below 100 % where that is promised
	@rm -f .coverage
	$(BIN)/python -m coverage run --branch --include='crawler/fetch/*,crawler/content/decode.py,crawler/content/codings.py' \
	  -m pytest -q -m "not prove" tests/unit/fetch tests/unit/content/test_decode.py
	@$(BIN)/python -m coverage report --skip-covered --show-missing
	$(BIN)/python -m coverage report --fail-under 100 --precision 2 \
	  --include="$$(echo $(FULLY_COVERED) | tr ' ' ,)"

clean:  ## remove .venv and caches
	rm -rf $(VENV) .venv-bench .venv-release .venv-docs .fuzz .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
