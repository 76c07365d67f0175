# One virtual environment for all; it is made anew when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/ready
LOWEST := $(VENV)/lowest/site-packages
# of searches; what resume knows code and values by does not depend on the version of scikit-learn
SEARCHES := $(filter-out %_resume_code.py %_isolation.py %_fingerprint.py,$(wildcard tests/search/test_search*.py))
ACTIVE := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: run ui test test-lowest lint format benchmark clean

run: $(READY)  ## train, and record every batch
	$(ACTIVE) MLFLOW_HTTP_REQUEST_MAX_RETRIES="$${MLFLOW_HTTP_REQUEST_MAX_RETRIES:-1}" mlflow run . --env-manager local
	@echo 'Now `make ui`, and open http://127.0.0.1:5000'

ui: $(READY)  ## look at the runs
	$(ACTIVE) mlflow server --app-name mlflow-hp --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

test: $(READY)  ## pass the tests
	$(ACTIVE) python -m pytest --numprocesses 2 --dist worksteal --durations 12

test-lowest: $(READY)  ## pass the tests of searches on the lowest scikit-learn that is supported
	$(VENV)/bin/python -m pip install --quiet --no-deps --upgrade --target $(LOWEST) 'scikit-learn==1.4.2'
	$(ACTIVE) PYTHONPATH="$(CURDIR)/$(LOWEST)" python -m pytest --numprocesses 2 --dist worksteal -m 'not slow' -W 'ignore:scipy.optimize:DeprecationWarning' $(SEARCHES)

lint: $(READY)
	$(ACTIVE) ruff check .
	$(ACTIVE) ruff format --check .
	$(ACTIVE) mypy
	$(ACTIVE) lint-imports

format: $(READY)
	$(ACTIVE) ruff check --fix .
	$(ACTIVE) ruff format .

benchmark: $(READY)
	$(ACTIVE) python benchmarks/recording.py --memory
	$(ACTIVE) python benchmarks/history_formats.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)
