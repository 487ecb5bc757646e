# Every target sets up what it needs in .venv, inside this checkout. Nothing outside it is changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Modules beside each other, on up to four cores: most tests wait for a disk, a socket or a process.
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadscope

demo: $(READY)        ## a permit, refusals and real fires in a local Solana VM
	$(BIN)/executor demo

help:                 ## this list
	@sed -n 's/^\([a-z]*\): *[^#]*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: help demo test lowest lint format bench fuzz mutants docs screenshots campaign lock clean

test: $(READY)        ## everything but the campaigns
	$(BIN)/python -m pytest $(BESIDE)

lint: $(READY)        ## style, and types, strictly
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)      ## rewrite the sources in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lowest: $(VENV)/pyvenv.cfg ## the tests by the oldest versions that pyproject.toml allows; TESTS=path for a part
	$(BIN)/python -m pip install --quiet uv
	rm -rf build/lowest && mkdir -p build
	$(BIN)/uv pip compile --quiet --python-version 3.11 --all-extras --resolution lowest-direct --no-header \
	    --no-emit-index-url pyproject.toml -o build/lowest.txt
	$(BIN)/uv venv --quiet --python 3.11 build/lowest
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python -r build/lowest.txt
	$(BIN)/uv pip install --quiet --python build/lowest/bin/python --no-deps --no-build-isolation -e .
	build/lowest/bin/python -m pytest $(BESIDE) $(TESTS)

bench: $(READY)       ## ratios against peers in the same run; writes build/bench.json
	$(BIN)/python -m tests.benchmarks

fuzz: $(READY)        ## two minutes of fuzzing; SECONDS=n for longer
	$(BIN)/python -m tests.fuzz $(or $(SECONDS),120)

mutants: $(READY)     ## mutation testing of the verifier and of the decisions, in build/mutants
	rm -rf build/mutants && mkdir -p build/mutants
	cp -r permits executor tests vectors docs pyproject.toml README.md build/mutants
	cd build/mutants && ../../$(BIN)/python -m mutmut run && ../../$(BIN)/python -m mutmut results

docs: $(READY)        ## builds build/docs; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	@echo "open build/docs/index.html"

screenshots: $(READY) ## the docs' pictures of the console, taken anew in chromium
	$(BIN)/python -m tests.browser.screenshots docs/images

campaign: $(READY)    ## long runs, before any release
	@$(BIN)/python -m pytest -m campaign $(BESIDE); status=$$?; \
	if [ $$status -eq 5 ]; then echo "no campaign exists yet: nothing was run"; else exit $$status; fi

lock: $(VENV)/pyvenv.cfg ## pins every version anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras \
	    --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o .ci/requirements.lock

clean:                ## take away everything that was made
	rm -rf $(VENV) build dist

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "holdfire needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "no virtual environment could be made (Debian: apt-get install python3-venv)" >&2; exit 1; }

$(READY): $(VENV)/pyvenv.cfg .ci/requirements.lock pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@
