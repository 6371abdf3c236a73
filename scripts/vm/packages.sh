# What vm.sh installs on this machine, and what the virtual machine's Debian is made of. Sourced.
suite=bookworm
host_packages=(debootstrap debian-archive-keyring e2fsprogs qemu-system-x86)
# debootstrap does not choose among alternatives: container-network-stack is named by one that provides it.
vm_packages=(
    systemd systemd-sysv dbus udev kmod linux-image-cloud-amd64 initramfs-tools apparmor python3 python3-venv libseccomp2
    iproute2 procps util-linux ca-certificates openssl tar e2fsprogs nftables
    busybox-static crun runc podman containernetworking-plugins skopeo docker-registry qemu-user make
)
