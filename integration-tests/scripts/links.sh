#!/usr/bin/env bash
# Checks that every relative link in Markdown exists, and every path in backticks in ARCHITECTURE.md and
# docs/decisions.
#
# Exit: 0 all exist, 1 some do not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

missing=0
check() {
  if [ ! -e "$2" ]; then
    printf '%s: %s does not exist\n' "$1" "$2" >&2
    missing=1
  fi
}

while IFS=: read -r page link; do
  path=${link#*](}
  path=${path%%[#)]*}
  [ -z "$path" ] || check "$page" "$(dirname "$page")/$path"
done < <(git ls-files --cached --others --exclude-standard '*.md' | xargs grep -sHoE '\]\([^):]+\)')

while read -r page path; do
  check "$page" "$path"
done < <(awk -F'`' '{ for (i = 2; i <= NF; i += 2) print FILENAME, $i }' ARCHITECTURE.md docs/decisions/*.md |
  grep -E ' ([a-z-]+/[a-z_./-]+\.(rs|sql)|agent/(core|src|database|aws)/[a-z_/-]+)$')

[ "$missing" -eq 0 ] && echo "links and paths in the documentation: all exist"
exit "$missing"
