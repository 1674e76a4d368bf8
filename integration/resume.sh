#!/bin/bash
# Copies MIB MiB to the lab's node and from it, over STREAMS streams; each copy is killed at KILLS random moments and then
# made again until it is whole. What arrives has to equal what was sent, nothing else may be left, and no kill may cost
# more than 8 MiB a stream: what the target's file system held of the unfinished file when everything under way had
# settled, less what the next run kept of it. To be run within a lab, such as
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

# held DIRECTORY: the bytes that the unfinished file in it has on the disk, once nobody writes to it any more.
held() {
    local before=-1 now
    while now=$(find "$1" -name '.copy.ssmcp-*' -printf '%b\n' | awk '{ n += $1 } END { print n * 512 }'); [ "$now" != "$before" ]; do
        before=$now
        sleep 0.2
    done
    echo "$now"
}

# field NAME FILE: the last number of this name in the JSON lines of a run; 0 if there is none.
field() { { grep -o "\"$1\":[0-9]*" "$2" || echo :0; } | tail -n 1 | cut -d : -f 2; }

# again NAME TARGET LONGEST SOURCE DESTINATION: as the comment above says; LONGEST seconds are the most before a kill.
again() {
    local name=$1 target=$2 longest=$3 whole=0 held=0 before=0 most=0 twice=0 kept lost kill
    local limit=$((streams * 8 * 1024 * 1024))
    shift 3
    # account RUN: what of the bytes that were there before this run it has not kept.
    account() {
        kept=$(field bytes_kept "$1")
        lost=$((held > kept ? held - kept : 0))
        twice=$((twice + lost))
        most=$((lost > most ? lost : most))
        [ "$lost" -le "$limit" ] || { echo "$name: $lost of $held bytes were sent twice, more than $limit"; exit 1; }
    }
    for kill in $(seq "$kills"); do
        ssmcp -q --json -j "$streams" "$@" > "$folder/run" &
        sleep "$(echo "scale=3; 0.5 + $RANDOM / 32768 * $longest" | bc)"
        if kill -KILL $! 2>/dev/null; then wait $! 2>/dev/null || true; else whole=$kill; break; fi
        # Who was killed before it went on has lost nothing, unless it had started over.
        if grep -q '"resumed"' "$folder/run"; then account "$folder/run"; fi
        before=$held
        held=$(held "$(dirname "$target")")
        [ $((held + limit)) -ge "$before" ] || { echo "$name: of $before bytes $held are left"; exit 1; }
    done
    [ "$whole" = 0 ] || echo "$name: whole before kill $whole of $kills"
    ssmcp -j "$streams" --json "$@" > "$folder/run"
    grep '"summary"' "$folder/run"
    [ "$whole" != 0 ] || account "$folder/run"
    [ "$(sha256sum < "$folder/source")" = "$(sha256sum < "$target")" ] || { echo "$name: differs"; exit 1; }
    [ "$(ls -A "$(dirname "$target")")" = copy ] || { echo "$name: left behind:"; ls -A "$(dirname "$target")"; exit 1; }
    echo "$name: equal, and nothing left behind; sent twice: $twice bytes, after one kill $most at most (limit $limit)"
}
again up "$folder/there/copy" 0.6 "$folder/source" "$SSM_LAB_NODE:$folder/there/copy"
again down "$folder/here/copy" 4 "$SSM_LAB_NODE:$folder/source" "$folder/here/copy"
ls -A "$folder/state/ssmssh/copies" | sed 's/^/journal left: /'
