#!/usr/bin/env bash
# Runs a command on the lab's node and copies a file there and back, all through a Session Manager data channel on
# loopback. Needs Rust and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --workspace --bins --locked

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
date > "$work/report.txt"

# The lab starts, runs the script below with the environment pointing at it, and ends with it.
WORK=$work "${CARGO_TARGET_DIR:-target}/debug/ssm-lab" -- bash -euc '
    node=$SSM_LAB_NODE
    echo "\$ ssmssh $node uname -a"
    ssmssh "$node" uname -a
    echo "\$ ssmcp report.txt $node:copied.txt"
    ssmcp "$WORK/report.txt" "$node:copied.txt"
    echo "\$ ssmssh $node cat copied.txt"
    ssmssh "$node" cat copied.txt
    ssmcp -q "$node:copied.txt" "$WORK/back.txt"
    cmp "$WORK/report.txt" "$WORK/back.txt"
    echo "The file went to the node and came back, byte for byte."
'
