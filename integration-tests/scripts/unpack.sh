#!/usr/bin/env bash
# Fetches packages of another suite of Debian, with the libraries that they want, into a folder, and installs
# nothing:
#
#   unpack.sh SUITE FOLDER PACKAGE...
#
# Each program in usr/bin, usr/sbin and usr/lib/postgresql is replaced by a script that runs it with its own
# libraries, down to the loader: they are newer than the system's. Does nothing if the folder exists.
set -euo pipefail

suite=$1 folder=$(realpath --canonicalize-missing "$2")
shift 2
[[ -d $folder ]] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{root,apt/lists/partial,apt/archives/partial}
touch "$work/apt/status"
# From where this machine has its own packages.
# shellcheck disable=SC2016 # apt-get's own variable
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
echo "deb ${mirror:?this machine knows no mirror of Debian: apt-get update} $suite main" >"$work/apt/sources.list"
apt=(apt-get -o "Dir::State=$work/apt" -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt"
  -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=-)
"${apt[@]}" update >&2
"${apt[@]}" install --yes --no-install-recommends --download-only "$@" >&2
for package in "$work"/apt/archives/*.deb; do
  dpkg-deb --extract "$package" "$work/root"
done

libraries=usr/lib/x86_64-linux-gnu
cd "$work/root"
for program in usr/bin/* usr/sbin/* usr/lib/postgresql/*/bin/*; do
  if [[ -f $program && ! -L $program && $(head --bytes=4 "$program") == $'\x7fELF' ]]; then
    mv "$program" "$program.elf"
    cat >"$program" <<END
#!/bin/sh
libraries=$folder/$libraries
exec "\$libraries/ld-linux-x86-64.so.2" --library-path "\${LD_LIBRARY_PATH:+\$LD_LIBRARY_PATH:}\$libraries" \\
    --argv0 "\$0" "$folder/$program.elf" "\$@"
END
    chmod 755 "$program"
  fi
done
chmod 755 "$work/root"
mkdir -p "$(dirname "$folder")"
mv "$work/root" "$folder"
