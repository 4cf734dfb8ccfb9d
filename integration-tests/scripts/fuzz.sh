#!/usr/bin/env bash
# Runs every property with many random cases and the simulation with many random seeds; `make test`
# runs few, always the same. A failure is printed in its smallest form: add it as a test.
#
# Environment: PROPTEST_CASES (default 5000), SIMULATION_SEEDS (default 100), REGRET_SEEDS (default 2000: fault
# scripts that are played with the agent acting, muted, and without one; REGRET_SEED=n plays one)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export PROPTEST_CASES=${PROPTEST_CASES:-5000} SIMULATION_SEEDS=${SIMULATION_SEEDS:-100} REGRET_SEEDS=${REGRET_SEEDS:-2000}
exec cargo test --workspace --exclude integration-tests --no-fail-fast "$@"
