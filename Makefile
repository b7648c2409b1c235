# What people and CI call. `make` alone lists the targets.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.PHONY: help demo test slow check live lint types fresh dist readme requirements clean

bin := .venv/bin
inputs := requirements/debian.txt requirements/debian-optional.txt requirements/run.txt pyproject.toml tools/setup

help:
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.run ## build a Debian image and publish it to three local clouds
	@$(bin)/publish run pipelines/demo.toml --sandbox --state .publish

test: .venv/.dev lint types ## all but `make slow`, the real guests included (minutes)
	$(bin)/pytest -n auto --dist worksteal tests/unit tests/conformance tests/live
	$(bin)/pytest --durations=20 -m "not slow" tests/end_to_end

slow: .venv/.dev ## whole installations, other Debians, foreign tools' disks (an hour)
	$(bin)/pytest --durations=20 -m slow tests/end_to_end

check: .venv/.dev lint types ## what needs no guest, but for the longest: under a minute
	$(bin)/pytest -q -n auto --dist worksteal -m "not long" tests/unit

live: .venv/.dev ## real accounts: skips, naming the missing variable
	$(bin)/pytest -m live tests/live

lint: .venv/.dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/lint-imports
	$(bin)/zizmor --offline --quiet --no-progress .github

types: .venv/.dev
	$(bin)/mypy

fresh: ## `make demo` and `make test` in a fresh Debian root
	@tools/setup host
	@tools/fresh demo demo test

dist: .venv/.dev ## the wheel and the source archive
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(bin)/python -m build --no-isolation

readme: .venv/.dev ## write the help texts in README.md anew
	$(bin)/python tools/readme.py

requirements: .venv/.dev ## pin requirements/*.txt anew (UPGRADE=1: to the newest)
	tools/pin $(bin)/python $(if $(UPGRADE),--upgrade)

clean: ## remove what was made here: .venv, the state, caches
	rm -rf .venv .publish .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist

.venv/.run: $(inputs)
	@tools/setup run
	@touch $@

.venv/.dev: $(inputs) requirements/dev.txt
	@tools/setup dev
	@touch .venv/.run $@
