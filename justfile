# Every recurring act. `just` lists them; each line here is also a command of its own.

default:
    @just --list

# Everything CI runs, installing what it needs.
ci:
    scripts/test

# The tests, quickly: no formatting, no lints.
test *ARGS:
    cargo nextest run --workspace {{ARGS}}

# The failovers over real processes and PostgreSQL, with their table.
failover:
    cargo test -p rmom --test failover -- --nocapture --test-threads=1

# Large sizes (about 10 GB of disk), with the tables of docs/benchmarks/sizes.md.
sizes:
    #!/usr/bin/env bash
    set -euo pipefail
    mkdir -p target
    export RMOM_TEST_SIZES=large RMOM_TEST_QUEUES=20000
    sized() { cargo test --profile sim --workspace --locked --test "$@" --nocapture --test-threads=1 | tee -a target/sizes.txt; }
    : > target/sizes.txt
    sized sizes --
    sized postgres_store -- many_queues
    sized processes -- overload
    printf '\n| case | size | measured | bound | beside it |\n| --- | --- | --- | --- | --- |\n'
    grep '^| ' target/sizes.txt
    printf '\n'
    grep -E '^[0-9]+ queues|MiB pushed' target/sizes.txt || true

# A few simulated clusters, for a first impression.
sim-smoke:
    cargo run --profile sim -p rmom-sim-lab -- run --seeds 50

# Many seeds that nobody has tried.
sim-sweep SEEDS="1000":
    cargo run --profile sim -p rmom-sim-lab -- run --fresh --seeds {{SEEDS}} --keep target/sim-failures

# More of them, which have to lead to every mark.
sim-nightly:
    cargo run --profile sim -p rmom-sim-lab -- run --fresh --seeds 10000 --require-marks --keep target/sim-failures

# Plants bugs and sees whether the simulation finds them: all of them take long.
sim-bugs *ARGS:
    cargo run --profile sim -p rmom-sim-lab -- bugs {{ARGS}}

# Fuzzes one target for as long as you like; `ls fuzz/targets` names them.
fuzz TARGET SECONDS="600":
    scripts/fuzz {{SECONDS}} {{TARGET}}

# Each target for a minute.
fuzz-smoke:
    scripts/fuzz 60

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

fmt:
    cargo fmt --all

# Licences, duplicates and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny check licenses bans sources

# Sees whether this commit could be released: crates, wheel, programs. Publishes nothing; `--no-verify` is quicker.
release-check *ARGS:
    scripts/release-check {{ARGS}}

# rmom and other systems side by side, into docs/benchmarks/: for a quiet machine, and about an hour.
bench-peers *ARGS:
    python3 peers/side_by_side.py {{ARGS}}

# The micro-benchmarks of the hot paths, or those whose names have FILTER in them.
bench-micro *FILTER:
    cargo bench -p rmom-core -p rmom-net -- {{FILTER}}

# The same of two commits, in turn: of OLD, and of NEW or the working tree.
bench-compare OLD NEW="." *FILTER:
    scripts/compare {{OLD}} {{NEW}} {{FILTER}}

# A broker on this laptop.
dev *ARGS:
    cargo run --release -- dev {{ARGS}}

# The Python client, the example and deploy/.
python:
    cargo build -p rmom
    scripts/test-python

doc:
    cargo doc --workspace --no-deps --open
