#!/usr/bin/env bash
# Runs the tests of the workspace: with nextest where it is installed, else with cargo test.
#
#   test.sh [ARGUMENTS]         every test; those in modules called `long` run briefly
#   test.sh --long [ARGUMENTS]  only those, at full length
#
# Arguments go to the runner, such as the name of a test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The same cases each time: what fails fails again, and nothing fails by chance. `make fuzz` draws
# others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}

long=
if [ "${1:-}" = --long ]; then
  long=1
  shift
  export FULL_LENGTH=1
fi

# Servers keep their data in the temporary folder: memory is several times faster than a disk.
free() { df --output=avail --block-size=1G /dev/shm | tail -1; }
if [ -z "${TMPDIR:-}" ] && [ -d /dev/shm ] && [ "$(free)" -ge 4 ] && ! findmnt -n -o OPTIONS /dev/shm | grep -qw noexec; then
  TMPDIR=$(mktemp -d /dev/shm/rdslb.XXXXXX)
  export TMPDIR
  trap 'rm -rf "$TMPDIR"' EXIT
  # As /tmp: the servers run as another user.
  chmod 1777 "$TMPDIR"
fi

# Integration tests start the programs of the workspace, which have to be built first.
cargo build --workspace --bins

if cargo nextest --version >/dev/null 2>&1; then
  if [ -n "$long" ]; then
    cargo nextest run --workspace --profile long "$@"
    exit
  fi
  # Doc tests are cargo test's alone. They go first: the runner's closing line ends the output.
  cargo test --workspace --doc --quiet
  cargo nextest run --workspace "$@"
  exit
fi
# As many at once as .config/nextest.toml allows: most of them wait for servers.
export RUST_TEST_THREADS=4
if [ -n "$long" ]; then
  cargo test --package integration-tests --no-fail-fast "$@" -- long::
  exit
fi
cargo test --workspace --no-fail-fast "$@"
