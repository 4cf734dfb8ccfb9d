#!/usr/bin/env bash
# Fetches the MySQL of Debian unstable, with the libraries it wants, into target/mysql; installs
# nothing. Then, for the tests of the MySQL family:
#
#   export STANDIN_MYSQL_BIN=$(integration-tests/scripts/mysql.sh)
#
# Debian's releases have no MySQL, and unstable has whatever is new: so no test needs it.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$PWD/target/mysql
if [[ ! -x $folder/bin/mysqld ]]; then
    rm -rf "$folder"
    mkdir -p "$folder"/{bin,root,apt/lists/partial,apt/archives/partial}
    touch "$folder/apt/status"
    # From where this machine has its own packages.
    # shellcheck disable=SC2016 # apt-get's own variable
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)
    echo "deb ${mirror:?this machine knows no mirror of Debian: apt-get update} sid main" >"$folder/apt/sources.list"
    apt=(apt-get -o "Dir::State=$folder/apt" -o "Dir::State::status=$folder/apt/status" -o "Dir::Cache=$folder/apt"
        -o "Dir::Etc::sourcelist=$folder/apt/sources.list" -o Dir::Etc::sourceparts=-)
    "${apt[@]}" update >&2
    "${apt[@]}" install --yes --no-install-recommends --download-only mysql-server-core >&2
    for package in "$folder"/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$folder/root"
    done
    rm -rf "$folder/apt"
    # With its own libraries, down to the loader: they are newer than the system's.
    cat >"$folder/bin/mysqld" <<END
#!/bin/sh
root=$folder/root
libraries=\$root/usr/lib/x86_64-linux-gnu
exec "\$libraries/ld-linux-x86-64.so.2" --library-path "\$libraries" "\$root/usr/sbin/mysqld" "\$@" \\
    "--basedir=\$root/usr" "--lc-messages-dir=\$root/usr/share/mysql"
END
    chmod 755 "$folder/bin/mysqld"
fi
echo "$folder/bin"
