#!/usr/bin/env bash
# Runs the library under a sanitizer of the nightly toolchain: address (bytes outside of what was allocated, or after it was
# given back) or thread (bytes that two threads reach at once without an order).
#   bash tests/sanitizers.sh address
#   bash tests/sanitizers.sh thread
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:?address or thread}
target=x86_64-unknown-linux-gnu
if ! cargo +nightly --version >/dev/null 2>&1; then
  echo "SKIPPED: the $kind sanitizer needs the nightly toolchain, which is not here" >&2
  exit 0
fi
# The standard library is as it was shipped, without the sanitizer.
export RUSTFLAGS="-Zsanitizer=$kind -Cunsafe-allow-abi-mismatch=sanitizer"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/sanitizer-$kind"
case $kind in
address)
  export ASAN_OPTIONS=detect_leaks=0
  cargo +nightly test --target $target --lib --test stress --test appender --test consumers
  ;;
thread)
  # The harness of tests is not instrumented and looks like a race, so this is an example: feed, archive and strategies
  # on many threads, which checks what it reads.
  export TSAN_OPTIONS="halt_on_error=0 exitcode=66"
  cargo +nightly run --target $target --example ticker_plant
  ;;
*)
  echo "address or thread, not $kind" >&2
  exit 2
  ;;
esac
echo "no reports of the $kind sanitizer"
