#!/bin/sh
# Sends UP MiB to the lab's node and DOWN MiB from it, each by a command and by a copy, and compares what arrived with what
# was sent. To be run within a lab, such as
#
#   ssm-lab --openssh --cut alternate --cut-every 3s --silence 5s -- integration/survive.sh 256 32
#   ssm-lab --openssh --loss 0.02 --duplicate 0.02 --reorder 0.05 --delay 30ms -- integration/survive.sh 64 8
set -eu
up=${1:?"usage: survive.sh UP DOWN, in MiB"} down=${2:?"usage: survive.sh UP DOWN, in MiB"}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
head -c "${up}M" /dev/urandom > "$folder/up"
head -c "${down}M" /dev/urandom > "$folder/down"
ssmssh -o LogLevel=QUIET "$SSM_LAB_NODE" true

# step NAME FILE COMMAND: COMMAND makes FILE.NAME, which has to equal FILE.
step() {
    began=$(date +%s.%N)
    sh -eu -c "$3"
    seconds=$(echo "$(date +%s.%N) - $began" | bc)
    want=$(sha256sum < "$folder/$2") have=$(sha256sum < "$folder/$2.$1")
    [ "$want" = "$have" ] || { echo "$2 $1: differs: $have instead of $want"; exit 1; }
    echo "$2 $1: equal, $seconds s, $(echo "scale=2; $(stat -c %s "$folder/$2") / 1000000 / $seconds" | bc) MB/s"
}
export folder
step command up 'ssmssh "$SSM_LAB_NODE" "cat > $folder/up.command" < "$folder/up"'
step copy up 'ssmcp -q "$folder/up" "$SSM_LAB_NODE:$folder/up.copy"'
step command down 'ssmssh "$SSM_LAB_NODE" "cat $folder/down" > "$folder/down.command"'
step copy-of-one-stream down 'ssmcp -q -j 1 "$SSM_LAB_NODE:$folder/down" "$folder/down.copy-of-one-stream"'
step copy down 'ssmcp -q "$SSM_LAB_NODE:$folder/down" "$folder/down.copy"'
