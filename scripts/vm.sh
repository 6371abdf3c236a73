#!/bin/bash
# The system tests on an ordinary distribution: vm.sh VENV ASSETS FOLDER [TEST...]
# Boots Debian's own kernel with systemd, cgroup version 2 and AppArmor in qemu and runs pytest there (default: tests/system).
#   FOLDER/base-KEY.img   the distribution with Corten's dependencies, made by debootstrap; made anew when its contents change
#   FOLDER/work.img       this checkout and the assets, made for each run; the results come back on it
#   FOLDER/results/       junit.xml, facts.json, log, journal of the last run; FOLDER/serial.log is the console
# In software, which works everywhere, it takes up to an hour; CORTEN_VM_ACCEL=kvm uses the processor instead, where it can be used.
# The machine is left as it was: mounts are made in a namespace of this script's own, qemu ends with it or after CORTEN_VM_SECONDS
# (3600); tests that were not reached by then are counted.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${CORTEN_VM_INSIDE:-}" ]; then exec env CORTEN_VM_INSIDE=1 unshare --mount --propagation private "$0" "$@"; fi
venv=$(cd "$1" && pwd) assets=$(cd "$2" && pwd); mkdir -p "$3"; folder=$(cd "$3" && pwd); shift 3
tests=("$@"); [ ${#tests[@]} -gt 0 ] || tests=(tests/system)  # a run of everything is kept in docs/compat.md
log=$folder/log; : >"$log"
seconds=${CORTEN_VM_SECONDS:-3600}
qemu=
trap 'status=$?; [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
      [ $status = 0 ] || { echo "test-vm failed ($status); the end of $log:"; tail -n 20 "$log"; }' EXIT
trap 'exit 130' INT TERM HUP
low=(nice -n 19 ionice -c3)

. "$here/scripts/vm/base.sh"
missing=()
for name in "${host_packages[@]}"; do dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name"); done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing Debian packages: ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >>"$log" 2>&1
fi

image() {  # FOLDER IMAGE SIZE: an ext4 image with the folder's contents
    rm -f "$2"; truncate -s "$3" "$2.new"
    "${low[@]}" mkfs.ext4 -q -F -d "$1" "$2.new" >>"$log" 2>&1
    mv "$2.new" "$2"
}

make_work() {
    local work=$folder/work
    rm -rf "$work" "$folder/results"; mkdir -p "$work"/{checkout,results,assets/images}
    (cd "$here" && git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -cf - 2>>"$log") | tar -xf - -C "$work/checkout"
    cp -a "$assets/clients" "$work/assets/"
    cp -a "$assets"/images/{busybox.tar,debian.tar,busybox-rootfs} "$work/assets/images/"
    cp "$here/scripts/vm/run.sh" "$work/"
    printf '%s\n' "${tests[@]}" >"$work/tests"
    echo $((seconds * 9 / 10 - 180)) >"$work/seconds"  # the rest is for booting and for ending in order
    image "$work" "$folder/work.img" 2G
    rm -rf "$work"
}

base=$folder/base-$(base_key)
[ -s "$base.img" ] || make_base "$base"
make_work

[ "${CORTEN_VM_ACCEL:-tcg}" = kvm ] && accel=kvm || accel=tcg,thread=multi
echo "booting: ${tests[*]}"
: >"$folder/serial.log"
TMPDIR=$folder "${low[@]}" timeout --kill-after=10 "$seconds" qemu-system-x86_64 -accel "$accel" -cpu max,arch-capabilities=off -smp 2 -m 3072 -no-reboot \
    -display none -monitor none -serial "file:$folder/serial.log" -nic none -object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng \
    -kernel "$base.kernel" -initrd "$base.initrd" -append "root=/dev/vda ro console=ttyS0 quiet panic=-1 net.ifnames=0" \
    -drive "file=$base.img,format=raw,if=virtio,snapshot=on" -drive "file=$folder/work.img,format=raw,if=virtio,cache=unsafe" >>"$log" 2>&1 &
qemu=$!
tail --pid="$qemu" -n +1 -f "$folder/serial.log" 2>/dev/null | grep --line-buffered -a -o 'corten-vm: .*' || true
status=0; wait "$qemu" || status=$?
[ "$status" = 0 ] || { tail -n 20 "$folder/serial.log" >>"$log"; echo "qemu ended with $status (124: out of time)" | tee -a "$log"; exit 1; }
qemu=
debugfs -R "rdump /results $folder" "$folder/work.img" >>"$log" 2>&1
exec "$venv/bin/python" "$here/scripts/vm/report.py" "$folder/results" "$here/docs/compat.md" "$@"
