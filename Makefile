# The one entry to building, testing and trying the project. `make help` lists what there is.
#
# Tests and demo share the dev profile (dependencies are optimised there), so that one build
# serves both; only measurements use the release profile.

SHELL := /bin/bash
SCRIPTS := integration-tests/scripts
# Passed on to the demo: HOLD=1 leaves everything running for you to try; ENGINE is postgresql or mariadb;
# PROXY is haproxy or envoy; DURATION is in seconds.
export HOLD ENGINE PROXY DURATION

.DEFAULT_GOAL := help
.PHONY: help deps build demo test test-long test-matrix fuzz lint bench regret deps-deploy test-deploy packages image clean

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

deps: ## install what is missing (haproxy, postgresql, mariadb, gcc, ...); start no service
	@$(SCRIPTS)/deps.sh

build: ## everything, dev profile
	cargo build --workspace --all-targets

demo: deps ## the main job on real servers, live, in about a minute (ENGINE=mariadb, PROXY=envoy; HOLD=1 leaves it running)
	cargo build --workspace --bins
	@cargo run --quiet --bin demo

test: deps ## all tests, against real HAProxy, Envoy, PostgreSQL and MariaDB; the long ones briefly
	@$(SCRIPTS)/test.sh

test-long: deps ## the long tests at full length: faults of a minute, 10,000 logins, 200 random rounds
	@$(SCRIPTS)/test.sh --long

test-matrix: deps ## the tests that talk to a proxy or a database, with other versions of them (ARGS=--list or names)
	@$(SCRIPTS)/versions.sh $(ARGS)

fuzz: ## every property with 5,000 cases drawn anew, the simulations with 100 and 2,000 seeds (PROPTEST_CASES, SIMULATION_SEEDS, REGRET_SEEDS)
	@$(SCRIPTS)/fuzz.sh

lint: ## formatting, clippy, dependency rules
	@$(SCRIPTS)/lint.sh

bench: deps ## measurements: a table, and target/bench/*.json (ARGS=--quick, --list, or names)
	cargo build --release --workspace --bins
	@cargo run --quiet --release --bin bench -- $(ARGS)

regret: deps ## what clients suffer with the agent, less without it: a table, and target/regret/ (ARGS=--ci, --list, or names)
	cargo build --workspace --bins
	@cargo run --quiet --bin regret -- $(ARGS)

deps-deploy: ## install what test-deploy and packages need (Helm, Ansible, nfpm, lintian, promtool, ...)
	@integration-tests/deploy/deps.sh

test-deploy: deps deps-deploy ## the Helm chart, Ansible collection, packages, units, image, IAM policies and alerts (BINARIES=folder; ARGS for pytest)
	@integration-tests/deploy/test.sh $(ARGS)

packages: deps-deploy ## .deb and .rpm in target/packages (BINARY=path takes a ready binary; default: a release build)
	@deploy/packages/build.sh

image: ## the container image rds-lb-agent:VERSION, by podman, buildah or docker
	@deploy/container/build.sh

clean: ## remove what was built, the Python environment included
	cargo clean
