#!/usr/bin/env bash
# Looks for what `make test` has not drawn: every property with many cases, the simulation with
# many seeds, drawn anew each time. What it finds is printed in its smallest form, and belongs
# into a test of its own. PROPTEST_CASES and SIMULATION_SEEDS say how many.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export PROPTEST_CASES=${PROPTEST_CASES:-5000} SIMULATION_SEEDS=${SIMULATION_SEEDS:-100}
exec cargo test --workspace --exclude integration-tests --no-fail-fast "$@"
