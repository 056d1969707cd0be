# `make demo` and `make test` need nothing but make and a Python from 3.11 to 3.13.
# PYTHON=... names another interpreter, TESTS=... gives pytest other arguments.
.PHONY: demo test lint clean FORCE
.DELETE_ON_ERROR:
TESTS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
# On Linux, huge pages make training on a CPU faster; elsewhere this does nothing.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1
PIP := .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

demo: .venv/installed
	$(HUGE_PAGES) .venv/bin/jaxformers train experiments/translation/demo.py

test: .venv/installed-test
	.venv/bin/python -m pytest $(TESTS)

lint: .venv/installed-test
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .

clean:
	rm -rf .venv .cache build *.egg-info

# A stamp holds the folder that it was made for, and is written last: what was interrupted, or
# moved, is made anew; when pyproject.toml or constraints.txt changed, what differs is installed.
MOVED := $(if $(and $(filter $(CURDIR),$(shell cat .venv/installed 2>/dev/null)),\
	$(shell .venv/bin/python -c 'print(1)' 2>/dev/null)),,FORCE)

.venv/installed: pyproject.toml constraints.txt $(MOVED)
	@$(if $(MOVED),$(new_environment),:)
	@rm -f .venv/installed*
	@echo "Installing jaxformers and what it needs, pinned, into .venv (a minute or two, 1.2 GB)"
	@$(PIP) -e .
	@echo "$(CURDIR)" > $@

.venv/installed-test: .venv/installed
	@echo "Installing what the tests need"
	@$(PIP) -e '.[test]'
	@echo "$(CURDIR)" > $@

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
