# Thin on purpose: CMake builds, spec/run tests, bench/run measures; this names the usual jobs.
PRESET ?= $(if $(CI),ci,release)
BUILD := build/$(PRESET)

.DEFAULT_GOAL := build
.PHONY: build

build: ## Build the C library and the Lua modules
	@test -f $(BUILD)/build.ninja || cmake --preset $(PRESET)
	@cmake --build --preset $(PRESET)
