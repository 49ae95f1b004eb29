# make quickstart   an environment in .venv, then the whole chain on the kit, offline: draw, curate, tune, test, report
# make test         an environment in .venv-test, then lint, types and tests
#
# Both environments are made from constraints.txt and made again only when it or pyproject.toml changes.
# For a CPU build of torch where pip would choose CUDA, set PIP_EXTRA_INDEX_URL to torch's CPU index first.

PYTHON ?= python3
VENV := .venv
TEST_VENV := .venv-test

.DELETE_ON_ERROR:
.PHONY: help quickstart test lint types format no-torchvision python clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

quickstart: $(VENV)/installed
	$(VENV)/bin/gen2real quickstart

test: lint types no-torchvision
	$(TEST_VENV)/bin/python -m pytest --numprocesses auto --dist loadfile

lint: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .

types: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/mypy

format: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff check --fix .
	$(TEST_VENV)/bin/ruff format .

# transformers and torchmetrics change their ways where torchvision is present; users without it must not be the first to notice.
no-torchvision: $(TEST_VENV)/installed
	@$(TEST_VENV)/bin/python -c 'import importlib.util as u, sys; sys.exit("torchvision came in with a dependency" if u.find_spec("torchvision") else 0)'

$(VENV)/installed: EXTRAS :=
$(TEST_VENV)/installed: EXTRAS := [dev]

# torch first, by itself: a dependency must not draw in another build of it.
%/installed: pyproject.toml constraints.txt | python
	test -x $*/bin/python || $(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	@touch $@

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gen2real needs Python 3.11 or newer, and $(PYTHON) is older. Name another: make PYTHON=python3.11 …" >&2; exit 1; }

clean:
	rm -rf $(VENV) $(TEST_VENV) build dist src/*.egg-info .mypy_cache .ruff_cache
