# The ways in. Each sets up what it needs; nothing has to be installed by hand on a Debian or Ubuntu where one is root.
.PHONY: help setup demo test test-cluster coverage check format schemas bench chaos fuzz picture
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where it is set, each of the many processes that are started would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

help:
	@echo 'make demo     build an example into a registry, twice, and once more with a change'
	@echo 'make test     run all tests, on real servers'
	@echo 'make test-cluster  run the Kubernetes tests on the cluster of KUBECONFIG; see tests/cluster/README.md'
	@echo 'make coverage run all tests and see how much of the code they run'
	@echo 'make check    lint, format, types, import rules'
	@echo 'make format   write the format that make check wants'
	@echo 'make schemas  write docs/schema and docs/settings.md from the models'
	@echo 'make bench    measure, print a table and write benchmarks/results.json (SMOKE=1: only see whether it runs)'
	@echo 'make chaos    break whole services at each point of each step, and in storms; takes hours (SHARE=0.1: a tenth of the points)'
	@echo 'make fuzz     try all that reads what others wrote with random texts, for SECONDS=60'
	@echo 'make picture  draw docs/live-view.svg from a real build on a terminal'
	@echo 'make setup    make .venv with everything in it'

setup: .venv/installed-all-dev

# The stamps are redone only when what is to be installed changes.
.venv/installed-all-dev: pyproject.toml uv.lock scripts/setup
	scripts/setup all,dev
	@touch $@ .venv/installed

.venv/installed: pyproject.toml uv.lock scripts/setup
	scripts/setup cli,local
	@touch $@

demo: .venv/installed
	scripts/services install --for demo
	scripts/services run engine registry -- scripts/demo

# Three processes, each with servers of its own: most tests wait for something, also on two CPUs. In the
# order of the files, the quick unit tests come last, so that all three end at about the same time.
test: setup
	scripts/services install --for test
	python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Only this names a real cluster to the tests: a plain `make test` never touches one.
test-cluster: export IMAGEMILL_TEST_KUBECONFIG := $(or $(IMAGEMILL_TEST_KUBECONFIG),$(KUBECONFIG))
test-cluster: setup
	@test -f "$$IMAGEMILL_TEST_KUBECONFIG" || { echo 'set KUBECONFIG to the kubeconfig of a cluster for tests' >&2; exit 2; }
	scripts/services install --for test
	python -m pytest $(wildcard tests/contract/test_kubernetes_*.py) tests/unit/builders/kaniko tests/cluster

# In one process, since each starts many others: takes twice as long as the tests do.
coverage: setup
	scripts/services install --for test
	coverage erase
	coverage run -m pytest
	coverage combine --quiet
	coverage report

picture: setup
	scripts/services install --for demo
	scripts/services run engine registry -- python scripts/picture.py

check: setup
	uv lock --check --quiet
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

format: setup
	ruff check --fix .
	ruff format .

schemas: setup
	python scripts/schemas.py
	PYTHONPATH=. python scripts/settings_page.py

chaos: setup
	scripts/services install --for test
	for broker in redis rabbitmq; do for builder in docker kaniko graft noop; do \
	    run="env PYTHONPATH=scripts python -m chaos --write --builder $$builder --broker $$broker"; \
	    $$run matrix --share $(or $(SHARE),1) || exit 1; \
	    $$run storm --seconds 600 || exit 1; \
	    $$run roll || exit 1; \
	    $$run storm --seconds 600 --servers-every 20 || exit 1; \
	done; done
	PYTHONPATH=scripts python -m chaos.outage registry 300
	PYTHONPATH=scripts python -m chaos.outage engine 60
	PYTHONPATH=scripts python -m chaos.messages 10000

# Of the processor alone: no server is needed.
fuzz: export IMAGEMILL_TEST_FUZZ_SECONDS := $(or $(SECONDS),60)
fuzz: setup
	python -m pytest --timeout $$((IMAGEMILL_TEST_FUZZ_SECONDS + 300)) tests/fuzz

bench: setup
	scripts/services install --for test
	python -m benchmarks.run $(if $(SMOKE),--smoke) $(ONLY)
