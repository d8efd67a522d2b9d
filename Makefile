# shadowpart: `make help` says what there is. Every target prepares what it needs (scripts/setup)
# and does nothing twice; the work is in scripts/, this file only names it.

SHELL := /bin/bash
PG_CONFIG ?=
DESTDIR ?=
SUDO ?=
ARGS ?=
PG ?=
export DESTDIR SUDO PG PG14 PG16 PG17

.DEFAULT_GOAL := all
.PHONY: all help setup install test demo bench lint check-versions package clean
# cargo is parallel itself, and two flavours installed at once would be a coin toss
.NOTPARALLEL:

all: setup ## build for PG_CONFIG (default: the embedded PostgreSQL 18)
	scripts/install --build-only release $(PG_CONFIG)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r name text; do printf '  %-16s%s\n' "$$name" "$$text"; done

setup: ## fetch and build the tools and servers that are missing
	@scripts/setup

install: setup ## install into PG_CONFIG's server; DESTDIR=..., SUDO=sudo
	scripts/install release $(PG_CONFIG)

test: setup ## all tests on every server here; PG=18 picks, ARGS=... goes to nextest
	scripts/test $(ARGS)

demo: setup ## a live migration of real data, then one that the extension foresees and makes itself; ARGS=--act\ 2 picks
	scripts/install release
	. scripts/env.sh && cargo run --release -p shadowpart-demo -- $(ARGS)

bench: setup ## benchmarks on every server here; PG=18 picks, ARGS=... goes to the benchmark
	scripts/bench $(ARGS)

lint: setup ## formatting, clippy with warnings as errors, SQL
	scripts/lint

check-versions: setup ## compile for PG14=, PG16=, PG17=<pg_config>
	scripts/check-versions

package: setup ## archive of the release build for PG_CONFIG
	scripts/package $(PG_CONFIG)

clean: ## remove what was built; tools and servers stay in the cache
	. scripts/env.sh && rm -rf "$$CARGO_TARGET_DIR"
