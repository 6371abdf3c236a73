# The virtual machine's Debian: what it is made of and how. Sourced by vm.sh, which has $venv, $folder, $log, $low and image().
suite=bookworm
host_packages=(debootstrap debian-archive-keyring e2fsprogs qemu-system-x86)
# debootstrap does not choose among alternatives: container-network-stack is named by one that provides it.
vm_packages=(
    systemd systemd-sysv dbus udev kmod linux-image-cloud-amd64 initramfs-tools apparmor python3 python3-venv libseccomp2
    iproute2 procps util-linux ca-certificates openssl tar e2fsprogs nftables
    bzip2 curl faketime git openssh-client xfsprogs btrfs-progs busybox-static crun runc podman containernetworking-plugins skopeo docker-registry qemu-user make
)
# What the project needs and what it is started by, a line each; a change of one makes a new base.
mapfile -t needs < <("$venv/bin/python" -c 'import sys, tomllib
file = tomllib.load(open(sys.argv[1], "rb"))
print(*file["project"]["dependencies"], *file["project"]["optional-dependencies"]["test"], *file["build-system"]["requires"], sep="\n")' "$here/pyproject.toml")
base_key() {
    { cat "$here"/scripts/vm/{base.sh,corten-tests.service}; printf '%s\n' "${needs[@]}"; sed -n '/^\[project.scripts\]/,/^\[/p' "$here/pyproject.toml"; } |
        sha256sum | cut -c1-12
}

make_base() {  # PREFIX: PREFIX.img, PREFIX.kernel, PREFIX.initrd; a virtual environment with everything but Corten's own code is in it
    local root=$folder/base
    rm -rf "$root" "$folder"/base-*.{img,initrd,kernel}
    echo "making Debian $suite with debootstrap (a few minutes)"
    "${low[@]}" debootstrap --variant=minbase --include="$(IFS=,; echo "${vm_packages[*]}")" --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        "$suite" "$root" "$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/$' | head -n 1)" >>"$log" 2>&1
    echo "installing Corten's dependencies into it"
    install_dependencies "$root"
    install -m 0644 "$here/scripts/vm/corten-tests.service" "$root/etc/systemd/system/"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../corten-tests.service "$root/etc/systemd/system/multi-user.target.wants/"
    printf '/dev/vda / ext4 defaults 0 0\n/dev/vdb /corten ext4 defaults 0 0\n' >"$root/etc/fstab"
    echo corten-vm >"$root/etc/hostname"; printf '127.0.0.1 localhost corten-vm\n' >"$root/etc/hosts"
    printf 'nameserver 127.0.0.1\n' >"$root/etc/resolv.conf"
    cp "$root"/boot/vmlinuz-* "$1.kernel"; cp "$root"/boot/initrd.img-* "$1.initrd"
    image "$root" "$1.img" 6G
    rm -rf "$root"
}

install_dependencies() {  # ROOT: fetched by this machine's pip, for the other's Python; Corten itself is linked to where the checkout will be
    local root=$1 wheels=$1/opt/wheels platforms=() glibc
    for glibc in 17 24 26 27 28 31 34; do platforms+=(--platform "manylinux_2_${glibc}_$(uname -m)"); done
    "$venv/bin/python" -m pip --disable-pip-version-check download -q --only-binary :all: --platform "manylinux2014_$(uname -m)" "${platforms[@]}" \
        --python-version "$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" -d "$wheels" "${needs[@]}" >>"$log" 2>&1
    chroot "$root" python3 -m venv /opt/corten >>"$log" 2>&1
    local pip=(chroot "$root" /opt/corten/bin/pip --isolated install -q --no-index)
    "${pip[@]}" --find-links /opt/wheels "${needs[@]}" >>"$log" 2>&1
    mkdir -p "$root/corten/checkout/src/corten"
    cp "$here"/{pyproject.toml,README.md,LICENSE} "$root/corten/checkout/"; touch "$root/corten/checkout/src/corten/__init__.py"
    "${pip[@]}" --no-deps --no-build-isolation -e /corten/checkout >>"$log" 2>&1
    rm -rf "$root"/corten/* "$wheels" "$root"/var/cache/apt/archives/*.deb
}
