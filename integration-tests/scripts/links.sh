#!/usr/bin/env bash
# Checks that every relative link in Markdown, and every path in backticks in ARCHITECTURE.md, exists.
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

while read -r path; do
  check ARCHITECTURE.md "$path"
done < <(awk -F'`' '{ for (i = 2; i <= NF; i += 2) print $i }' ARCHITECTURE.md | grep -E '^[a-z-]+/[a-z_./-]+\.(rs|sql)$|^agent/(core|src)/[a-z_/-]+$')

[ "$missing" -eq 0 ] && echo "links and paths in the documentation: all exist"
exit "$missing"
