#!/bin/bash
# Corten and the real Docker Engine side by side: bench/run.sh, by way of `make bench`. Both have their data on one loop-mounted ext4 and
# their run folders on a tmpfs, as /run is on an ordinary system.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); top=$(dirname "$here"); python=$top/.venv/bin/python
: "${CORTEN_ASSETS:?run this by way of make bench}"
work=$(mktemp -d /tmp/corten-bench-XXXXXX)
cleanup() {
    [ -z "${engine:-}" ] || { kill "$engine" 2>/dev/null || true; wait "$engine" 2>/dev/null || true; }
    umount "$work/run" "$work/disk/docker/exec" 2>/dev/null || true
    umount "$work/disk" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
truncate -s 8G "$work/image"; mkfs.ext4 -q "$work/image"; mkdir "$work/disk"; mount -o loop "$work/image" "$work/disk"
mkdir -p "$work/run" "$work/disk/docker/exec"
for folder in "$work/run" "$work/disk/docker/exec"; do mount -t tmpfs tmpfs "$folder"; done
"$top/.venv/bin/cortend" --data-root "$work/disk/corten" --exec-root "$work/run/corten" --cgroup-parent /corten-bench -H "unix://$work/corten.sock" >"$work/log" 2>&1 &
engine=$!
cd "$top"
CORTEN_BENCH_WORK="$work" "$python" -m bench.beside_docker
