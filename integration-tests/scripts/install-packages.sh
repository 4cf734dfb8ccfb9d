#!/usr/bin/env bash
# Installs Debian packages for the tests, as root, and starts nothing.
#
# Debian's postgresql and mariadb-server packages create and start a database, and haproxy starts a
# service; the tests need the programs only. This script prevents both while it runs. Packages that
# are already installed are not stopped, upgraded or reconfigured.
#
# Usage: install-packages.sh PACKAGE...
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 PACKAGE..." >&2; exit 64; }
[ "$(id -u)" -eq 0 ] || { echo "$0: needs root" >&2; exit 77; }

policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/rds-lb-agent-tests.conf
no_database=/etc/mysql/conf.d/rds-lb-agent-tests.cnf
undo=()
cleanup() { for step in "${undo[@]}"; do eval "$step"; done; }
trap cleanup EXIT

if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\n# Only while rds-lb-agent installs its test dependencies.\nexit 101\n' >"$policy"
  chmod 0755 "$policy"
  undo+=("rm -f '$policy'")
elif ! grep -q 'exit 101' "$policy"; then
  # An existing policy stays in force, and may start services.
  echo "note: $policy exists and is left as it is" >&2
fi
if [ ! -e "$no_cluster" ]; then
  mkdir -p "${no_cluster%/*}"
  echo "create_main_cluster = false" >"$no_cluster"
  undo+=("rm -f '$no_cluster'")
fi
if [ ! -e "$no_database" ]; then
  # A path that cannot exist: the package fails to create its database there and continues.
  mkdir -p "${no_database%/*}"
  printf '[mariadb-install-db]\ndatadir = /dev/null/none\n' >"$no_database"
  undo+=("rm -f '$no_database'")
fi

# Units installed by this run must not start at the next boot either.
units=()
for package in "$@"; do
  case $package in
    haproxy) unit=haproxy.service ;;
    postgresql) unit=postgresql.service ;;
    mariadb-server) unit=mariadb.service ;;
    prometheus) unit=prometheus.service ;;
    *) continue ;;
  esac
  [ -e "/lib/systemd/system/$unit" ] || units+=("$unit")
done

export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
apt-get update -q
apt-get install -q -y -o Dpkg::Use-Pty=0 --no-install-recommends --no-upgrade "$@"

if [ ${#units[@]} -gt 0 ] && command -v systemctl >/dev/null; then
  systemctl disable "${units[@]}" || echo "note: could not disable ${units[*]}" >&2
fi
