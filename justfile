# Short names for what the README and CI run.

# What this file offers.
default:
    @just --list

# A shell command and a file copy through the lab.
demo:
    examples/demo.sh

# Every test, with a real sshd among them.
test:
    .ci/test

# What CI runs: formatting, lints, docs, tests.
ci:
    .ci/run

# The engine's speed as a ratio to SHA-256, and what a stream carries through the lab.
bench *cases:
    cargo bench --bench engine
    cargo bench --bench stream -- {{cases}}

# Each fuzz target for a while (needs nightly and cargo-fuzz).
fuzz seconds="30":
    .ci/fuzz {{seconds}}

# Licences, bans and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny check licenses bans sources

# Accept changed snapshots (needs cargo-insta).
review:
    cargo insta review
