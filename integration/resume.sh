#!/bin/bash
# Copies MIB MiB to the lab's node and from it, over STREAMS streams; each copy is killed at KILLS random moments and then
# made again until it is whole. What arrives has to equal what was sent, and nothing else may be left. To be run within a
# lab, such as
#
#   ssm-lab --openssh -- integration/resume.sh 256 8 10
set -euo pipefail
mib=${1:?"usage: resume.sh MIB STREAMS KILLS"} streams=${2:?"usage: resume.sh MIB STREAMS KILLS"}
kills=${3:?"usage: resume.sh MIB STREAMS KILLS"}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export XDG_STATE_HOME=$folder/state
mkdir "$folder/here" "$folder/there"
head -c "${mib}M" /dev/urandom > "$folder/source"
ssmssh -o LogLevel=QUIET "$SSM_LAB_NODE" true

# again NAME TARGET LONGEST SOURCE DESTINATION: as the comment above says; LONGEST seconds are the most before a kill.
again() {
    local name=$1 target=$2 longest=$3 whole=0
    shift 3
    for kill in $(seq "$kills"); do
        ssmcp -q -j "$streams" "$@" &
        sleep "$(echo "scale=3; 0.5 + $RANDOM / 32768 * $longest" | bc)"
        if kill -KILL $! 2>/dev/null; then wait $! 2>/dev/null || true; else whole=$kill; break; fi
    done
    [ "$whole" = 0 ] || echo "$name: whole before kill $whole of $kills"
    ssmcp -j "$streams" --json "$@" | grep '"summary"'
    [ "$(sha256sum < "$folder/source")" = "$(sha256sum < "$target")" ] || { echo "$name: differs"; exit 1; }
    [ "$(ls -A "$(dirname "$target")")" = copy ] || { echo "$name: left behind:"; ls -A "$(dirname "$target")"; exit 1; }
    echo "$name: equal, and nothing left behind"
}
again up "$folder/there/copy" 0.6 "$folder/source" "$SSM_LAB_NODE:$folder/there/copy"
again down "$folder/here/copy" 4 "$SSM_LAB_NODE:$folder/source" "$folder/here/copy"
ls -A "$folder/state/ssmssh/copies" | sed 's/^/journal left: /'
