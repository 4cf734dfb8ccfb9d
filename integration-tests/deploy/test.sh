#!/usr/bin/env bash
# Tests deploy/. Builds the programs of the workspace (dev profile) unless BINARIES names a folder that has them.
# Skipped tests are listed with what is missing. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ -z "${BINARIES:-}" ]; then
  cargo build --workspace --bins
  export BINARIES=$PWD/target/debug
fi
exec target/venv-deploy/bin/pytest -p no:cacheprovider -q -rs --durations=5 integration-tests/deploy "$@"
