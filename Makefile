# Linux and macOS; README.md has the plain commands, which Windows needs. `make test CONSTRAINTS=constraints-lowest.txt`
# takes the oldest supported versions, `make course PYTHON=/a/python3.12` a Python of your choice.
CONSTRAINTS ?= constraints.txt
VENV_PYTHON := .venv/bin/python

# A Python that was named is taken or refused; without one, the first that serves is taken.
ifeq ($(origin PYTHON),undefined)
PYTHONS := python3 python3.13 python3.12 python3.11
else
PYTHONS := "$(PYTHON)"
endif
# Debian ships venv without ensurepip unless python3-venv is installed; such a Python cannot make an environment.
SERVES := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: course test lab notebooks results bench bench-scaling faults assignments grade site check matrix clean

course: .venv/.installed  ## run lessons 1 to 6 in order, and leave pages and the comparison in build/
	@$(VENV_PYTHON) tools/run_course.py 1 2 3 4 5 6

test: check  ## lint, compare notebooks with their scripts, unit tests, every notebook at the smallest budget
	@$(VENV_PYTHON) -m pytest --nbval-lax

lab: .venv/.installed  ## open the lessons in JupyterLab
	@$(VENV_PYTHON) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks $(LAB_OPTIONS)

notebooks: .venv/.installed  ## write badges and first cells into the scripts, and every notebook from its script
	@$(VENV_PYTHON) tools/openers.py --write
	@$(VENV_PYTHON) tools/pairs.py --write

results: .venv/.installed  ## write tables, rows and figures from results/
	@$(VENV_PYTHON) tools/results.py --write

bench: .venv/.installed  ## predecessors and lessons side by side, reduced; FULL=1 for the whole
	@$(VENV_PYTHON) benchmarks/run.py $(if $(FULL),--full)

bench-scaling: .venv/.installed  ## how cost grows with images, image size and width
	@$(VENV_PYTHON) benchmarks/scaling.py

faults: .venv/.installed  ## inject every fault that the course promises to survive, and count
	@$(VENV_PYTHON) faults/inject.py $(if $(SCALE),--scale $(SCALE))

assignments: .venv/.grading  ## the students' assignments, for nbgrader and as zip files, in build/assignments
	@$(VENV_PYTHON) tools/assignments.py

grade: .venv/.grading  ## grade a folder of notebooks: make grade SUBMISSIONS=folder
	@$(VENV_PYTHON) tools/grade.py $(if $(SUBMISSIONS),"$(SUBMISSIONS)")

site: .venv/.site  ## the course's site in build/site, from what `make course` left, else at the smallest budget
	@$(VENV_PYTHON) tools/build_site.py

check: .venv/.installed  ## lint, and compare notebooks with their scripts, and badges, tables and figures with what they follow from
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) tools/openers.py --check
	@$(VENV_PYTHON) tools/pairs.py --check
	@$(VENV_PYTHON) tools/results.py --check

matrix: .venv/.installed  ## every lesson on every supported Python and TensorFlow, and as on Colab; ROWS="colab-2.19 lowest"
	@$(VENV_PYTHON) tools/matrix.py $(ROWS)

# What can be made again in seconds goes. The environment, downloaded images, trained models and the gradebook, which holds
# marks that were given by hand, stay.
clean:
	@[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name assignments -exec rm -rf {} +
	@rm -rf dist .pytest_cache .ruff_cache */__pycache__ notebooks/.ipynb_checkpoints

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	@$(VENV_PYTHON) -c '$(SERVES)' 2>/dev/null || { found=; \
		for python in $(PYTHONS); do \
			if "$$python" -c '$(SERVES)' 2>/dev/null; then found="$$python"; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo 'The course needs Python 3.11, 3.12 or 3.13 with the venv module: install one' \
				'(on Debian and Ubuntu python3-venv too), or name it: make PYTHON=/path/to/python3.' >&2; \
			exit 1; \
		fi; \
		"$$found" -m venv --clear .venv; \
	}
	@echo 'Installing TensorFlow, Jupyter and the course into .venv; the first time takes some minutes.'
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

.venv/.grading: .venv/.installed
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[grading]'
	@touch $@

.venv/.site: .venv/.grading
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[site]'
	@touch $@

.venv/.browser: .venv/.site
	@$(VENV_PYTHON) -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[browser]'
	@touch $@
