#!/usr/bin/env bash
# Formatting, clippy, dependency rules, shell scripts and wording. The last lines say what was
# not checked on this machine, and what is needed to check it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

unchecked=()

cargo fmt --all --check
cargo clippy --workspace --all-targets -- -D warnings

# One TLS stack (rustls 0.23 on aws-lc-rs) and one hyper. deny.toml has the same rules with reasons;
# this check needs no cargo-deny.
refused='^(ring|openssl|openssl-sys|native-tls) |^rustls v0\.21|^hyper v0\.14'
tree=$(cargo tree --workspace -e normal --prefix none --format '{p}')
if found=$(grep -E "$refused" <<<"$tree" | sort -u); then
  printf 'refused in the dependency tree (see deny.toml for the reasons):\n%s\n' "$found" >&2
  exit 1
fi
echo "dependency tree: no ring, openssl, native-tls, rustls 0.21 or hyper 0.14"

integration-tests/scripts/links.sh

# Licenses and sources always; advisories only with cargo-deny and the RustSec database.
integration-tests/scripts/licenses.py
if ! cargo deny --version >/dev/null 2>&1; then
  unchecked+=("advisories, yanked versions: needs cargo-deny (cargo install cargo-deny --locked)")
else
  cargo deny check bans licenses sources
  if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny check advisories
  else
    unchecked+=("advisories, yanked versions: the RustSec database (github.com) cannot be reached")
  fi
fi

if command -v shellcheck >/dev/null; then
  shellcheck integration-tests/scripts/*.sh integration-tests/deploy/*.sh deploy/*/*.sh deploy/packages/scripts/*.sh .ci/run
  echo "shell scripts: shellcheck found nothing"
else
  unchecked+=("shell scripts: needs shellcheck (make deps installs it as root)")
fi

integration-tests/scripts/words.sh

for what in "${unchecked[@]}"; do
  printf 'not checked: %s\n' "$what"
done
