#!/usr/bin/env bash
# Kills ticker_plant with `kill -9` at random moments, and checks from outside what is left.
#
#   tests/kill_ticker_plant.sh [KILLS] [RECORDS] [RATE]          (default: 50 5000000 300000)
#
# A life of the program appends ticks to a directory and says in a file how many records the directory must
# hold (--accepted). After every kill the directory is opened by another process, which must find at least so
# many (--inspect); the next life goes on with --resume. Only kills that hit a live process count. At the end
# a last life finishes the run, and its verdict must say stored=RECORDS and four zeros. If a run is through
# before all kills are done, another begins in a fresh directory. SEED=n fixes the random waits, though not
# where in the program they end.
#
# Ends with one line, `ok kills=...` or `failed ...`; exit 0 or 1.

set -euo pipefail
cd "$(dirname "$0")/.."

kills=${1:-50} records=${2:-5000000} rate=${3:-300000}
for number in "$kills" "$records" "$rate"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || { echo "usage: $0 [KILLS] [RECORDS] [RATE], each at least 1" >&2; exit 2; }
done
RANDOM=${SEED:-$$}

work=$(mktemp -d "${TMPDIR:-/tmp}/ticker_plant.XXXXXX")
pid=
cleanup() {
    [[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "--- the last life said:"
    cat "$work/out" 2>/dev/null || true
    echo "failed after $done_kills kills: $*"
    exit 1
}

cargo build --release --quiet --example ticker_plant
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
plant="$target/release/examples/ticker_plant"

# What the program says it has accepted, into `promised`; nothing yet is 0.
read_accepted() {
    local text
    text=$(head -c 20 "$work/accepted" 2>/dev/null) || true
    [[ -n $text ]] || text=00000000000000000000
    [[ $text =~ ^[0-9]{20}$ ]] || fail "the accepted file holds ${text@Q}"
    promised=$((10#$text))
}

# What another process finds in the directory, into `held`.
read_stored() {
    "$plant" --inspect --data "$work/data" >"$work/inspect" 2>&1 || fail "--inspect: $(cat "$work/inspect")"
    held=$(sed -n 's/^stored=//p' "$work/inspect")
    [[ $held =~ ^[0-9]+$ ]] || fail "--inspect says: $(cat "$work/inspect")"
}

random_ms() { echo $(((RANDOM * 32768 + RANDOM) % ($1 + 1))); }
seconds() { printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }

begin() {
    rm -rf "$work/data" "$work/accepted"
    runs=$((runs + 1))
}

start() {
    "$plant" --data "$work/data" --records "$records" --rate "$rate" --accepted "$work/accepted" --resume \
        >"$work/out" 2>&1 &
    pid=$!
}

# The verdict of a life that came to its end by itself.
check_verdict() {
    local audit
    audit=$(tail -n 2 "$work/out" | head -n 1)
    [[ $audit == "audit stored=$records missing=0 duplicated=0 reordered=0 altered=0" ]] || fail "$audit"
    [[ $(tail -n 1 "$work/out") == ok\ in=*\ groups=3\ mismatches=0 ]] || fail "$(tail -n 1 "$work/out")"
    read_stored
    ((held == records)) || fail "--inspect finds $held of $records"
    read_accepted
    ((promised == records)) || fail "accepted $promised of $records"
}

finish() {
    local status=0
    wait "$pid" || status=$?
    pid=
    [[ $status == 0 ]] || fail "exit code $status"
    check_verdict
    finished=$((finished + 1))
}

done_kills=0 runs=0 finished=0 idle=0 most_surplus=0
# On average a life appends for half of `span`, so that the kills are spread over the run.
span=$((2 * 1000 * records / rate / kills + 1))
begin
while ((done_kills < kills)); do
    read_accepted
    before=$promised
    start
    if ((RANDOM % 4)); then
        # While it appends: wait for the first record of this life, then a while.
        while kill -0 "$pid" 2>/dev/null && ((promised <= before)); do
            sleep 0.01
            read_accepted
        done
        sleep "$(seconds "$(random_ms "$span")")"
    else
        # At any moment, opening, recovery and rebuilding included.
        sleep "$(seconds "$(random_ms 1000)")"
    fi
    # A process that has ended but was not waited for still takes a signal: its exit status tells them apart.
    status=0
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || status=$?
    pid=
    if ((status == 137)); then
        done_kills=$((done_kills + 1))
        read_accepted
        read_stored
        ((held >= promised)) || fail "$held records are there, $promised were accepted"
        ((held <= records)) || fail "$held records are there, $records were asked for"
        ((promised > before)) || idle=$((idle + 1))
        ((held - promised <= most_surplus)) || most_surplus=$((held - promised))
        echo "kill $done_kills of $kills: accepted $promised, stored $held"
        ((held < records || done_kills == kills)) && continue
        # Killed after its last record: let it come to its verdict, then begin anew.
        start
        finish
        begin
    elif ((status == 0)); then
        check_verdict
        finished=$((finished + 1))
        begin
    else
        fail "exit code $status"
    fi
done
start
finish
echo "ok kills=$done_kills idle=$idle runs=$runs finished=$finished stored=$records surplus=$most_surplus"
