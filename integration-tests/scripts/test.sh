#!/usr/bin/env bash
# Runs every test of the workspace: with nextest where it is installed, else with cargo test.
# Arguments go to the runner (a test's name, for one).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The same cases each time: what fails fails again, and nothing fails by chance. `make fuzz` draws
# others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}

# Integration tests start the programs of the workspace: they have to be there, and fresh.
cargo build --workspace --bins

if cargo nextest --version >/dev/null 2>&1; then
  # Doc tests are cargo test's alone. They go first: the runner's closing line ends the output.
  cargo test --workspace --doc --quiet
  exec cargo nextest run --workspace "$@"
fi
# Two at once, as .config/nextest.toml has it: each heavy test runs several real servers.
export RUST_TEST_THREADS=2
exec cargo test --workspace --no-fail-fast "$@"
