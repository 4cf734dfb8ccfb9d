#!/usr/bin/env bash
# Checks the wording of the tree against the table in CONTRIBUTING.md.
#
# Lists, without failing, where Debug output (`{:?}`) may reach a log line, a message or an exported
# value. Then fails on every phrase that stands in backticks in the table's first column.
#
# Usage: words.sh [PATH...]   paths to check; default: every file that git does not ignore
# Exit: 0 none of the phrases, 1 some (with file and line), 2 the table cannot be read
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

phrases=$(awk '
  /^## / { here = /^## Words/ }
  here && /^\|/ { split($0, cell, "|"); n = split(cell[2], part, "`"); for (i = 2; i <= n; i += 2) print part[i] }
' CONTRIBUTING.md)
if [ -z "$phrases" ]; then
  echo "words.sh: no phrases under \"## Words\" in CONTRIBUTING.md" >&2
  exit 2
fi
mapfile -t files < <(git ls-files --cached --others --exclude-standard --deduplicate -- "$@" |
  grep -E '\.(rs|md|ya?ml|sql|cfg|sh|toml)$' | while read -r file; do if [ -f "$file" ]; then echo "$file"; fi; done)
[ ${#files[@]} -gt 0 ] || exit 0

# Product code only, up to the tests at the end of each file.
mapfile -t product < <(printf '%s\n' "${files[@]}" | grep -E '^(agent|haproxy|envoy)/(.*/)?src/.*\.rs$' | grep -v tests)
debug=
[ ${#product[@]} -eq 0 ] || debug=$(awk '
  FNR == 1 { tests = 0 }
  /#\[cfg\(test\)\]/ { tests = 1 }
  !tests && !/assert|panic!|unreachable!|^ *\/\// && (/\{[[:alnum:]_.]*:#?\?\}/ || /[(, ]\?[a-z_]+[,)]/) {
    sub(/^ +/, ""); print FILENAME ":" FNR ": " $0
  }' "${product[@]}")
[ -z "$debug" ] || printf 'Debug output in product code (a list, no failure):\n%s\n' "$debug"

# The table itself names the phrases.
if found=$(grep -HniwFf <(printf '%s\n' "$phrases") -- "${files[@]}" | grep -v '^CONTRIBUTING\.md:[0-9]*:|'); then
  printf '%s\n' "$found"
  printf 'wording: %s lines have a phrase that CONTRIBUTING.md replaces\n' "$(wc -l <<<"$found")" >&2
  exit 1
fi
echo "wording: none of the phrases that CONTRIBUTING.md replaces"
