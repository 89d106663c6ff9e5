#!/usr/bin/env bash
# Runs the fault suite and writes what it printed as a table into src/docs/reliability.md.
# TAPELOG_FAULTS=night bash tests/faults/table.sh makes the table of a release.
set -euo pipefail
cd "$(dirname "$0")/../.."
page=src/docs/reliability.md
lines=$(mktemp)
trap 'rm -f "$lines" "$lines.page"' EXIT
{
  cargo test --release --test faults -- --nocapture --test-threads 1
  cargo test --release --lib forks -- --nocapture --test-threads 1
  cargo test --release --test races
  if [ "${TAPELOG_FAULTS:-}" = night ]; then bash .ci/sanitizers; fi
} | tee "$lines.page" | grep -o '{"test":.*}' \
  | grep -v 'meant to fail' | sort >"$lines"

# The lines are flat, so splitting at commas and colons is all the parsing there is.
table() {
  echo '| test | faults | acknowledged | lost | wrong | panics | seconds | seed |'
  echo '|---|---:|---:|---:|---:|---:|---:|---:|'
  sed -E -e 's/^\{"test":"([^"]*)"(.*),"(distinct|instructions)":([0-9]+)\}$/{"test":"\1 (\4 \3)"\2}/' \
    -e 's/^\{"test":"([^"]*)","skipped":"([^"]*)"\}$/| \1 | skipped: \2 | | | | | | |/' \
    -e 's/^\{"test":"([^"]*)","seed":([0-9]+),"cycles":([0-9]+),"acked":([0-9]+),"lost":([0-9]+),"wrong":([0-9]+),"panics":([0-9]+),"secs":([0-9.]+)\}$/| \1 | \3 | \4 | \5 | \6 | \7 | \8 | \2 |/' "$lines"
}
awk -v table="$(table)" '
  /<!-- table: end -->/ { skip = 0 }
  !skip { print }
  /<!-- table: begin -->/ { print ""; print table; print ""; skip = 1 }
' "$page" >"$lines.page"
cp "$lines.page" "$page"
