# The commands of every day. `just` lists them.

default:
    @just --list

# What every change must pass
ci:
    bash .ci/run

# All tests, as the README says
test:
    cargo test

# Format and lint
lint:
    cargo fmt --all
    cargo clippy --all-targets --all-features -- -D warnings

# The documentation, as it will be on docs.rs
doc:
    cargo doc --no-deps --all-features --open

# The main job on a simulated feed
plant *ARGS:
    cargo run --release --example ticker_plant -- {{ARGS}}

# The main job, killed at random moments and checked from outside
kill KILLS="50" RECORDS="5000000" RATE="300000":
    bash tests/kill_ticker_plant.sh {{KILLS}} {{RECORDS}} {{RATE}}

# Benchmarks with their physical floors
bench:
    cargo bench
