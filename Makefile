# `make demo` and `make test` need nothing but make and a Python from 3.11 to 3.13.
# PYTHON=... names another interpreter, CONSTRAINTS=... another file of pinned versions, such as
# constraints-jax0.12.txt for the newest jax; TESTS=... gives pytest other arguments.
.PHONY: demo test test-all lint types docs links notebooks clean FORCE
.DELETE_ON_ERROR:
CONSTRAINTS ?= constraints.txt
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
TESTS ?= $(PARALLEL)
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# On Linux, huge pages make training on a CPU faster; elsewhere this does nothing.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1
NOTEBOOKS = $(filter-out docs/notebooks/index.md,$(wildcard docs/notebooks/*.md))
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)

demo: .venv/installed
	$(HUGE_PAGES) .venv/bin/jaxformers train experiments/translation/demo.py

test: .venv/installed-test
	.venv/bin/python -m pytest $(TESTS)

# Everything: the linter, the types, the default suite and the slow tests. Of these, those that fail
# run once more, one at a time: beside others their clocks run slow.
test-all: lint types test
	.venv/bin/python -m pytest -m slow $(PARALLEL) || \
		.venv/bin/python -m pytest -m slow --last-failed --last-failed-no-failures none

lint: .venv/installed-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/codespell *.md docs jaxformers experiments

# The public surface, as [tool.mypy] in pyproject.toml lists it.
types: .venv/installed-test
	.venv/bin/mypy

# The pages of docs/ with the notebooks executed; a warning is an error.
docs: .venv/installed-docs
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "The pages are in build/docs/index.html"

# The pages' links to other sites; needs the network.
links: .venv/installed-docs
	.venv/bin/python -m sphinx -q -b linkcheck -D nb_execution_mode=off docs build/links
	@echo "Every link is in build/links/output.txt"

# The notebooks as files that Jupyter opens.
notebooks: .venv/installed-docs
	@mkdir -p build/ipynb
	@for notebook in $(NOTEBOOKS); do \
		.venv/bin/jupytext --quiet --to ipynb --output build/ipynb/$$(basename $$notebook .md).ipynb \
			$$notebook || exit 1; \
	done
	@echo "The notebooks are in build/ipynb"

clean:
	rm -rf .venv .cache build *.egg-info

# A stamp holds the folder and the constraints that the environment was made for, and is written
# last: an environment that was interrupted, moved, or made by another Python than the one asked for
# is made anew; when pyproject.toml or the constraints changed, what differs is installed.
STAMP := $(CURDIR):$(CONSTRAINTS)
VERSION := import sys; print(*sys.version_info[:2], sep=".")
INSTALLED_PYTHON := $(shell .venv/bin/python -c '$(VERSION)' 2>/dev/null)
WANTED_PYTHON := $(if $(PYTHON),$(shell "$(PYTHON)" -c '$(VERSION)' 2>/dev/null),$(INSTALLED_PYTHON))
MOVED := $(if $(and $(INSTALLED_PYTHON),$(filter $(INSTALLED_PYTHON),$(WANTED_PYTHON)),\
	$(filter $(STAMP),$(shell cat .venv/installed 2>/dev/null))),,FORCE)

.venv/installed: pyproject.toml $(CONSTRAINTS) $(MOVED)
	@$(if $(MOVED),$(new_environment),:)
	@rm -f .venv/installed*
	@echo "Installing jaxformers and what it needs, pinned, into .venv (a minute or two, 1.2 GB)"
	@$(PIP) -e .
	@echo "$(STAMP)" > $@

.venv/installed-test: .venv/installed
	@echo "Installing what the tests need"
	@$(PIP) -e '.[test,docs]'
	@echo "$(STAMP)" > $@

.venv/installed-docs: .venv/installed
	@echo "Installing what the documentation needs"
	@$(PIP) -e '.[docs]'
	@echo "$(STAMP)" > $@

define new_environment
rm -rf .venv; \
for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python; do \
	[ -n "$$python" ] || continue; \
	if "$$python" -c "$(SUITABLE)" 2>/dev/null; then exec "$$python" -m venv .venv; fi; \
	[ "$$python" != "$(PYTHON)" ] || break; \
done; \
echo "jaxformers needs Python 3.11, 3.12 or 3.13 with its venv module (on Debian or Ubuntu:" \
	"apt install python3-venv); name one with: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12" >&2; \
exit 1
endef
