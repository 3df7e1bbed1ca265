# Thin on purpose: spec/setup installs, CMake builds, spec/run tests, bench/run measures.
#
#   make test SPEC=yamux        only the tests whose path matches (an extended regular expression)
#   make test PRESET=asan       any target with another preset of CMakePresets.json
PRESET ?= $(if $(CI),ci,release)
BUILD := build/$(PRESET)
PREFIX ?= /usr/local
SPEC ?=
NAME ?=
SECONDS ?= 60

.DEFAULT_GOAL := build
.PHONY: help build demo test bench asan fuzz lint docs install clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

build: ## Build the C library and the Lua modules
	@if [ -f $(BUILD)/build.ninja ]; then cmake --preset $(PRESET) >/dev/null; \
	  else cmake --preset $(PRESET); fi
	@cmake --build --preset $(PRESET)

demo: ## Install what is missing, build, and show streams and an application at work on a real file
	@spec/setup demo
	@$(MAKE) --no-print-directory build
	@. $(BUILD)/env && lua5.4 examples/tail/demo.lua && echo && lua5.4 examples/pipeline/demo.lua

test: ## Install what is missing, build, and run every test, or those that match SPEC=
	@spec/setup test
	@$(MAKE) --no-print-directory build
	@PRESET=$(PRESET) spec/run '$(SPEC)'

bench: ## Run the benchmarks, or the one called NAME=
	@spec/setup demo
	@$(MAKE) --no-print-directory build
	@PRESET=$(PRESET) bench/run '$(NAME)'

asan: ## Run the tests with AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory test PRESET=asan

fuzz: ## Fuzz each parser for SECONDS= (60)
	@spec/setup fuzz
	@$(MAKE) --no-print-directory build PRESET=fuzz
	@spec/fuzz/run '$(SECONDS)' '$(NAME)'

lint: ## Check formatting, warnings, style and layering
	@spec/setup lint
	@$(MAKE) --no-print-directory build
	@PRESET=$(PRESET) .ci/lint

docs: ## Write the API reference to docs/api
	@spec/setup docs
	@ldoc --quiet --testing --config docs/config.ld . >/dev/null

install: build ## Install below PREFIX= (/usr/local)
	@cmake --install $(BUILD) --prefix '$(PREFIX)'

clean: ## Remove everything that was built
	@rm -rf build docs/api
