#!/bin/bash
# Times copies to and from the lab's node beside OpenSSH's own programs, and prints how many times as fast each is as the
# first of its section. Every copy is compared with its source. MIB MiB go down and four times as many go up; with FILES,
# so many files of 4 KiB go both ways instead. It needs the release build with its examples:
#
#   cargo build --release --workspace --bins --examples && PATH=$PWD/target/release:$PATH
#
#   ssm-lab --openssh -- integration/copies.sh 64
#   ssm-lab --openssh --delay 25ms -- integration/copies.sh 0 2000
set -euo pipefail
mib=${1:?"usage: copies.sh MIB [FILES]"} files=${2:-0}
examples=$(dirname "$(command -v ssmcp)")/examples
folder=$(mktemp -d)
forward=
trap '[ -z "$forward" ] || kill "$forward"; rm -rf "$folder"' EXIT
cd "$folder"
mkdir here there
node=$SSM_LAB_NODE there=$folder/there
ssmssh -o LogLevel=QUIET "$node" true

"$examples/forward" "$node" 22 0 > port &
forward=$!
until [ -s port ]; do sleep 0.1; done
openssh=(-q -P "$(cat port)" -i "$SSMSSH_IDENTITY" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null)
at=${SSMSSH_USER:-$(id -un)}@127.0.0.1

# lap NAME SOURCE COPY COMMAND…: runs it, compares, and tells how long it took and how many times as fast as `base` it was.
base=
lap() {
    local name=$1 source=$2 copy=$3 before after
    shift 3
    before=$EPOCHREALTIME
    "$@" > output
    after=$EPOCHREALTIME
    [ -z "$copy" ] || { diff -r "$source" "$copy" && rm -rf "$copy"; }
    awk -v name="$name" -v seconds="$(echo "$after - $before" | bc)" -v base="$base" \
        'BEGIN { printf "%-36s %7.2f s %s\n", name, seconds, base ? sprintf("%6.2f", base / seconds) : "" }'
    [ -n "$base" ] || base=$(echo "$after - $before" | bc)
}

# Lines of a web server.
log() {
    awk -v limit="$1" 'BEGIN {
        srand(1)
        while (size < limit) {
            line = sprintf("10.%d.%d.%d - - [22/Nov/2026:%02d:%02d:%02d +0000] \"GET /shop/item/%d HTTP/1.1\" %d %d \"-\" \"Mozilla/5.0 (X11; Linux x86_64) Firefox/%d.0\"",
                rand() * 4, rand() * 256, rand() * 256, size / limit * 24, rand() * 60, rand() * 60, rand() * 5000,
                rand() < 0.97 ? 200 : 404, rand() * 40000, 120 + rand() * 8)
            size += length(line) + 1
            print line
        }
    }'
}

big() {
    head -c "${mib}M" /dev/urandom > noise
    head -c "$((4 * mib))M" /dev/urandom > more
    log $((mib << 20)) > log

    echo "== down, $mib MiB of noise"
    lap "ssmcp -j1" noise here/noise ssmcp -q -j1 "$node:$folder/noise" here/
    lap "the raw channel" "" "" "$examples/raw_stream" "$node" 19 pull $((mib << 20))
    for streams in 4 8 auto; do lap "ssmcp -j$streams" noise here/noise ssmcp -q -j$streams "$node:$folder/noise" here/; done
    lap scp noise here/noise scp "${openssh[@]}" "$at:$folder/noise" here/
    lap sftp noise here/noise sftp "${openssh[@]}" "$at:$folder/noise" here/

    for streams in 4 8 auto; do
        echo "== down, $mib MiB of log, $streams streams"
        base=
        lap "ssmcp --compression off" log here/log ssmcp -q -j$streams --compression off "$node:$folder/log" here/
        lap "ssmcp --compression auto" log here/log ssmcp -q -j$streams "$node:$folder/log" here/
    done
    lap "scp -C" log here/log scp -C "${openssh[@]}" "$at:$folder/log" here/

    echo "== up, $((4 * mib)) MiB of noise"
    base=
    for streams in 1 4 8 auto; do lap "ssmcp -j$streams" more there/more ssmcp -q -j$streams more "$node:$there/"; done
    lap scp more there/more scp "${openssh[@]}" more "$at:$there/"
}

many() {
    mkdir tree
    for file in $(seq "$files"); do head -c 4096 /dev/urandom > "tree/$file"; done
    echo "== up, $files files of 4 KiB"
    lap "scp -r" tree there/tree scp -r "${openssh[@]}" tree "$at:$there/"
    for streams in auto 1; do lap "ssmcp -r -j$streams" tree there/tree ssmcp -q -r -j$streams tree "$node:$there/"; done
    echo "== down, $files files of 4 KiB"
    base=
    lap "scp -r" tree here/tree scp -r "${openssh[@]}" "$at:$folder/tree" here/
    for streams in auto 1; do lap "ssmcp -r -j$streams" tree here/tree ssmcp -q -r -j$streams "$node:$folder/tree" here/; done
}

if [ "$files" -gt 0 ]; then many; else big; fi
