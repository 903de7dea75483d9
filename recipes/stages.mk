# What the recipes' Makefiles share; a recipe sets NAME (its folder) and includes this.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

ROOT := ../..
DATA ?=
JUDGES ?=
OUT ?= $(ROOT)/build/$(NAME)
BIN ?= $(ROOT)/.venv/bin
PYTHON := "$(BIN)/python"
KIT := "$(BIN)/audiolm-kit"
# Threads of each process. Independent runs side by side use two cores better than one run on both: make -j2 THREADS=1
ifdef THREADS
export OMP_NUM_THREADS := $(THREADS)
endif

# The judges bring packages of their own, and a recipe may name more: an environment is made for them, unless an interpreter
# that has them is named.
JUDGES_MORE ?=
ifdef JUDGES_PYTHON
JUDGES_READY :=
else
JUDGES_PYTHON := $(OUT)/judges-env/bin/python
JUDGES_READY := $(if $(JUDGES),$(OUT)/judges-env.done)
endif
define JUDGES_MISSING
JUDGES is missing: make $@ JUDGES=FOLDER with a judges.py (README.md says what it has to offer)
endef
define DATA_MISSING
DATA is missing: make DATA=FOLDER with a copy of the recordings (README.md says where from) [JUDGES=FOLDER]
endef

# How it was run, for the record: the options that were given, but no folder of this machine.
GIVEN = $(foreach name,$(OPTIONS),$(if $(filter-out file undefined,$(origin $(name))),$(name)="$($(name))"))
COMMAND = $(strip make -C recipes/$(NAME) $(1) DATA=FOLDER JUDGES=FOLDER $(GIVEN))
# A stage that was finished before is begun anew, one that was interrupted is resumed. (Make reads this before it runs the lines.)
FRESH = $(if $(wildcard $@),--fresh)
# Every try says in the stage's file that it has begun and, at its end or when it is stopped, its seconds; kill -9 leaves none.
TIMED = echo "== $(1)"; mkdir -p $(OUT)/times; $(if $(wildcard $@),rm -f $(OUT)/times/$(1);) echo begun >> $(OUT)/times/$(1); \
  trap "echo \$$((\$$(date +%s) - $$(date +%s))) >> $(OUT)/times/$(1)" EXIT

.PHONY: help table

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

table: ## Write the tables of README.md anew from results/
	$(PYTHON) $(ROOT)/tools/results.py README.md

$(OUT)/judges-env.done:
	$(if $(JUDGES),,$(error $(JUDGES_MISSING)))
	python3 -m venv $(OUT)/judges-env
	$(JUDGES_PYTHON) -m pip --disable-pip-version-check install torch==2.13.0 -r "$(JUDGES)/requirements.txt" $(JUDGES_MORE)
	touch $@
