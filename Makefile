# Needs Python 3.11 or newer, git and make; everything else goes into .venv and build/.
# Another Python than python3: make PYTHON=python3.12 TARGET
PYTHON ?= python3
# Compiled files of the packages must not land in the template folder: cookiecutter would copy them into projects.
export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
export PIP_DISABLE_PIP_VERSION_CHECK := 1

CHECKED := hooks tests benchmarks docs "{{cookiecutter.project_slug}}/{{cookiecutter.package_name}}" \
	"{{cookiecutter.project_slug}}/lightning_hpc"
DEMO := build/demo/my-research-project
VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 TARGET")' \
	&& $(PYTHON) -m venv

.PHONY: help demo test slow mutation lint docs bench clean
.DEFAULT_GOAL := help

help:  ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: build/demo-env/installed  ## generate a project with the defaults, install it, train it
	rm -rf build/demo
	build/demo-env/bin/cookiecutter . --no-input --output-dir build/demo
	build/demo-env/bin/pip install --constraint tests/constraints.txt --editable $(DEMO)
	cd $(DEMO) && "$(CURDIR)/build/demo-env/bin/python" Train.py fit
	@echo "The project is in $(DEMO), its result in $(DEMO)/runs."

# Three processes on two cores: many tests wait for SLURM and W&B.
test: .venv/installed  ## run the tests that are not marked slow; apt installs SLURM and Chromium for them where it can
	sh tests/install.sh
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 3 --dist worksteal -m "not slow"

slow: .venv/installed  ## run the others: long kill chains, two ranks, faults in SLURM, the tests of generated projects
	sh tests/install.sh
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 3 --dist worksteal -m slow

# Not a part of `make test`: it takes from minutes to hours. ROOM: runs, settings, loading, survive, slurm …; FILES: some of its.
ROOM ?= runs
FILES ?=
mutation: .venv/installed  ## change one room's code in many ways and list what no test notices; slow: make mutation ROOM=slurm FILES=resources.py
	.venv/bin/pip install --quiet --constraint tests/constraints.txt mutmut==3.8.1
	OMP_NUM_THREADS=1 .venv/bin/python tests/mutation/mutate.py $(ROOM) $(FILES)

lint: .venv/installed  ## check the style of the template, its tests and both packages
	.venv/bin/ruff check --config pyproject.toml $(CHECKED)
	.venv/bin/ruff format --check --config pyproject.toml $(CHECKED)

docs: build/docs-env/installed  ## build the documentation into docs/_build
	build/docs-env/bin/sphinx-build -W --keep-going --fresh-env -b html docs docs/_build/html

bench: .venv/installed  ## measure everything, hours: docs/benchmarks says how to run one
	for name in generation start footprint step_overhead kill_chain checkpoints loaders cka launch slices packing mirror sweeps results; do .venv/bin/python benchmarks/$$name.py || exit 1; done

clean:  ## remove environments and everything built
	rm -rf .venv build docs/_build

.venv/installed: tests/requirements.txt tests/constraints.txt
	$(VENV) .venv
	.venv/bin/pip install --quiet --requirement tests/requirements.txt --constraint tests/constraints.txt
	touch $@

build/demo-env/installed: tests/constraints.txt
	$(VENV) build/demo-env
	build/demo-env/bin/pip install "cookiecutter>=2.6"
	touch $@

build/docs-env/installed: docs/requirements.txt
	$(VENV) build/docs-env
	build/docs-env/bin/pip install --quiet --requirement docs/requirements.txt
	touch $@
