# make run    a trained, scored classifier and its report, from nothing
# make test   formatting, types, and all tests but the slow ones: before a commit
# make test-slow  the slow tests
# make check  formatting, lint and types alone
# make bench  the measurements behind the README
# make bench-gpu  training under JAX on a GPU; `make gpu-bundle` carries it to a machine without a network
# make notebook / figures / pretrained / lock  rebuild what is generated and committed

PYTHON ?= python3
BIN := .venv/bin
RUN := runs/fast

.PHONY: run test test-slow check bench bench-gpu gpu-bundle notebook figures pretrained lock clean

run: .venv/.installed
	test ! -e $(RUN)/config.json || test -e $(RUN)/manifest.json || $(BIN)/fmnist train --resume $(RUN)
	test -e $(RUN)/config.json || $(BIN)/fmnist train --preset fast --run $(RUN)
	test -e $(RUN)/report.html || $(BIN)/fmnist evaluate $(RUN)
	@echo "The report: $(CURDIR)/$(RUN)/report.html"

test: .venv/.installed-dev check
	FMNIST_DATA= $(BIN)/fmnist data
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-slow: .venv/.installed-dev
	FMNIST_DATA= $(BIN)/fmnist data
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

check: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.installed-dev run
	$(BIN)/fmnist export $(RUN)
	$(BIN)/fmnist export $(RUN) --int8
	$(BIN)/fmnist export $(RUN) --plain
	$(BIN)/python benchmarks/inference.py --run $(RUN)
	$(BIN)/python benchmarks/serving.py --clients 50 --seconds 60 --run $(RUN)
	$(BIN)/python benchmarks/time_to_accuracy.py --full --preset fast --seeds 10
	$(BIN)/python benchmarks/time_to_accuracy.py --full --preset tiny --seeds 5 --int8 --out benchmarks/results/tiny.json
	$(BIN)/python benchmarks/time_to_accuracy.py --full --preset best --seeds 3 --out benchmarks/results/best.json

# needs JAX and NumPy; what else is missing comes from build/gpu
bench-gpu:
	path="$$($(PYTHON) scripts/gpu_bundle.py --unpack)" && \
		PYTHONPATH="$$path$${PYTHONPATH:+:$$PYTHONPATH}" $(PYTHON) -u benchmarks/gpu.py $(ARGS)

gpu-bundle: .venv/.installed
	$(BIN)/python scripts/gpu_bundle.py

notebook: .venv/.installed-dev
	$(BIN)/python scripts/build_notebook.py

pretrained: .venv/.installed
	$(BIN)/python scripts/build_pretrained.py $(PHOTOS)

figures: .venv/.installed
	$(BIN)/python scripts/draw_figures.py $(RUN)

# needs uv; the result is for plain pip
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header
lock:
	$(LOCK) --extra train --group run -o requirements.txt
	$(LOCK) --extra train --extra demo --extra heic --extra jax --extra cluster --extra search --extra tensorboard \
		--group dev -c requirements.txt -o requirements-dev.txt

.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
		f"Python {v[0]}.{v[1]} found; expected 3.11 to 3.13. Name another: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

.venv/.installed: requirements.txt pyproject.toml .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
