# One virtual environment for all; it is made again when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
LOWEST := $(VENV)/lowest
DOCS := build/docs-venv
PACKAGING := build/package-venv
# What meets other libraries' versions: what a search is resumed, recovered, described and grouped by does not.
APART := %_resume_code.py %_resume_same.py %_resume_killed.py %_recovery.py %_journal.py %_isolation.py %_fingerprint.py \
  %_bytecode.py %_values.py %_describe.py %_reported.py %_texts.py %_results.py
SEARCHES := $(filter-out $(APART),$(wildcard tests/search/test_search*.py))
NAMES := $(filter-out %_names_of_libraries.py,$(wildcard tests/compat/test_*.py))
VERSIONED := $(SEARCHES) tests/search/test_adaptive.py $(NAMES) tests/server/test_page.py tests/tracking/test_runs.py tests/training/test_capture.py
OTHERS := 3.12 3.13
# certificates that pip trusts, too
export UV_SYSTEM_CERTS := 1
ACTIVE := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: run ui test test-lowest test-python docs package lint format benchmark clean

run: $(READY)  ## train, and record every batch
	$(ACTIVE) MLFLOW_HP_UI='make ui' \
	  MLFLOW_HTTP_REQUEST_MAX_RETRIES="$${MLFLOW_HTTP_REQUEST_MAX_RETRIES:-1}" mlflow run . --env-manager local

ui: $(READY)  ## look at the runs
	$(ACTIVE) mlflow-hp ui

test: $(READY)  ## pass the tests; ALL=1: with every combination, which takes more than twice as long
	$(ACTIVE) python -m pytest --numprocesses 3 --dist worksteal --durations 12 $(if $(ALL),,-m 'not thorough')
	$(ACTIVE) python docs/versions.py 'make test'

test-lowest: $(LOWEST)/ready  ## pass the tests that meet the lowest versions of all libraries; ALL=1: all that are not slow
	$(LOWEST)/bin/python -m pytest --numprocesses 3 --dist worksteal -m 'not slow and not thorough' $(if $(ALL),,$(VERSIONED))
	$(LOWEST)/bin/python docs/versions.py 'make test-lowest'

test-python: $(READY)  ## pass the tests that are not slow on the other Pythons, as far as uv finds or brings them
	for version in $(OTHERS); do \
	  PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | paste -sd:)" \
	    $(VENV)/bin/uv venv --quiet --clear --python $$version $(VENV)/$$version \
	    || { echo "not tested on Python $$version, which uv did not find"; continue; }; \
	  $(VENV)/bin/uv pip install --quiet --python $(VENV)/$$version/bin/python --editable '.[dev]' && \
	  $(VENV)/$$version/bin/python -m pytest --numprocesses 3 --dist worksteal -m 'not slow and not thorough' && \
	  $(VENV)/$$version/bin/python docs/versions.py 'make test-python' || exit 1; \
	done

docs: $(DOCS)/ready  ## build the site into build/docs/html: run every block of the documentation, draw every picture, check every link
	PATH="$(CURDIR)/$(DOCS)/bin:$$PATH" PYTHONPATH=. python -m docs.site

package: $(PACKAGING)/ready  ## build the sdist and the wheel into dist, and check what an index would refuse
	rm -rf dist
	$(PACKAGING)/bin/uv build --quiet
	$(PACKAGING)/bin/twine check --strict dist/*

lint: $(READY)
	$(ACTIVE) ruff check .
	$(ACTIVE) ruff format --check .
	$(ACTIVE) mypy
	$(ACTIVE) lint-imports

format: $(READY)
	$(ACTIVE) ruff check --fix .
	$(ACTIVE) ruff format .

benchmark: $(READY)
	$(ACTIVE) python -m benchmarks.recording --memory
	$(ACTIVE) python -m benchmarks.history_formats

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --editable '.[dev]' \
	|| $(VENV)/bin/python -m pip install --quiet --editable '.[dev]'  # which knows other settings of a mirror
	touch $(READY)

$(DOCS)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet uv
	$(DOCS)/bin/uv pip install --quiet --compile-bytecode --python $(DOCS)/bin/python --editable '.[docs]' \
	|| $(DOCS)/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(PACKAGING)/ready:
	$(PYTHON) -m venv --clear $(PACKAGING)
	$(PACKAGING)/bin/python -m pip install --quiet uv twine
	touch $@

$(LOWEST)/ready: $(READY)
	$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python $(LOWEST)
	$(VENV)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	touch $@
