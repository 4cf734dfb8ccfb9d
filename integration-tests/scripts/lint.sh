#!/usr/bin/env bash
# Formatting, clippy, and what may be in the dependency tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings

# One TLS stack (rustls 0.23 on aws-lc-rs) and one hyper. cargo-deny says so too, with
# reasons; this check is for machines without it.
refused='^(ring|openssl|openssl-sys|native-tls) |^rustls v0\.21|^hyper v0\.14'
tree=$(cargo tree --workspace -e normal --prefix none --format '{p}')
if found=$(grep -E "$refused" <<<"$tree" | sort -u); then
  printf 'refused in the dependency tree (see deny.toml for the reasons):\n%s\n' "$found" >&2
  exit 1
fi
echo "dependency tree: no ring, openssl, native-tls, rustls 0.21 or hyper 0.14"

if cargo deny --version >/dev/null 2>&1; then
  cargo deny check
else
  echo "cargo-deny is not installed: licenses and advisories (deny.toml) were not checked"
fi

if command -v shellcheck >/dev/null; then
  shellcheck integration-tests/scripts/*.sh .ci/run
else
  echo "shellcheck is not installed: the shell scripts were not checked"
fi
