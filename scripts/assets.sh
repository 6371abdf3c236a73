#!/bin/bash
# What the tests need besides Corten: real clients, other runtimes, base images. assets.sh DIR [docker]
#   DIR/clients/usr/bin/docker     today's docker CLI, unpacked (not installed) from the distribution's newest suite
#   DIR/compose/             today's compose plugin, likewise; docker-compose 1.29 is installed where the distribution has it
#   DIR/buildx/              today's buildx plugin, likewise
#   DIR/sshd/                the machine's own OpenSSH server, unpacked: nothing of it is started but by a test
#   DIR/images/{busybox,debian,services}.tar   docker archives made from packages: no image registry is asked
#   DIR/dockerd (with `docker`)    the real Docker Engine, unpacked, for recording and benchmarks
# The mirrors are those that this machine's apt is configured for. Says what it does; can be run again.
set -euo pipefail
mkdir -p "$1"; dir=$(cd "$1" && pwd); want=${2:-}
log=$dir/log; : >"$log"
trap 'status=$?; [ $status = 0 ] || { echo "assets failed; the end of $log:"; tail -n 20 "$log"; }' EXIT
[ "$(id -u)" = 0 ] || { echo "the system tests need root" | tee -a "$log"; exit 1; }
. /etc/os-release

packages=(buildah busybox-static bzip2 ca-certificates crun curl debootstrap docker-registry faketime git nftables openssh-client openssl podman qemu-user runc
          skopeo tar)
[ "$want" = docker ] && packages+=(iptables e2fsprogs)
case $(apt-cache policy docker-compose | grep Candidate) in *" 1.29."*) packages+=(docker-compose) ;; esac
missing=()
for name in "${packages[@]}"; do dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name"); done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing Debian packages: ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >>"$log" 2>&1
fi

unpack() {  # DIR PACKAGE...: from the newest suite on Debian, from the machine's own elsewhere
    local target=$1; shift
    local apt=$target/.apt opts=()
    mkdir -p "$apt/debs" "$apt/state/lists/partial" "$apt/cache/archives/partial"
    if [ "$ID" = debian ]; then
        local mirror
        mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/$' | head -n 1)
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
        : >"$apt/state/status"
        opts=(-oDir::Etc::sourcelist="$apt/sources.list" -oDir::Etc::sourceparts=/nonexistent -oDir::Etc::preferencesparts=/nonexistent
              -oDir::State="$apt/state" -oDir::State::status="$apt/state/status" -oDir::Cache="$apt/cache" -oAPT::Sandbox::User=root)
        apt-get "${opts[@]}" -qq update >>"$log" 2>&1
    fi
    (cd "$apt/debs" && apt-get "${opts[@]}" -qq download "$@") >>"$log" 2>&1
    for deb in "$apt"/debs/*.deb; do dpkg -x "$deb" "$target"; done
    rm -rf "$apt"
}

if [ ! -x "$dir/clients/usr/bin/docker" ]; then
    echo "unpacking the docker CLI"
    rm -rf "$dir/clients"
    if [ "$ID" = debian ]; then unpack "$dir/clients" docker-cli; else unpack "$dir/clients" docker.io; fi
fi
if [ "$want" = docker ] && [ ! -x "$dir/clients/usr/libexec/docker/cli-plugins/docker-buildx" ]; then
    echo "unpacking docker buildx"
    unpack "$dir/clients" docker-buildx
fi
if [ "$ID" = debian ] && [ ! -d "$dir/compose/usr" ]; then
    echo "unpacking the compose plugin"
    rm -rf "$dir/compose"; unpack "$dir/compose" docker-compose
fi
if [ ! -d "$dir/buildx/usr" ]; then
    echo "unpacking the buildx plugin"
    rm -rf "$dir/buildx"; unpack "$dir/buildx" docker-buildx
fi
if [ ! -x "$dir/sshd/usr/sbin/sshd" ]; then
    echo "unpacking the OpenSSH server"
    rm -rf "$dir/sshd"; mkdir -p "$dir/sshd/.debs"
    names=(openssh-server)
    [ -z "$(apt-cache show libwrap0 2>/dev/null)" ] || names+=(libwrap0)
    (cd "$dir/sshd/.debs" && apt-get -qq -oAPT::Sandbox::User=root download "${names[@]}") >>"$log" 2>&1
    for deb in "$dir"/sshd/.debs/*.deb; do dpkg -x "$deb" "$dir/sshd"; done
    rm -rf "$dir/sshd/.debs"
fi
if [ "$want" = docker ] && [ ! -x "$dir/dockerd/usr/sbin/dockerd" ] && [ ! -x "$dir/dockerd/usr/bin/dockerd" ]; then
    echo "unpacking the Docker Engine"
    rm -rf "$dir/dockerd"
    if [ "$ID" = debian ]; then unpack "$dir/dockerd" docker.io containerd; else unpack "$dir/dockerd" docker.io containerd runc; fi
    # Debian's newer runc wants a newer libc than an older release has: the machine's own serves.
    [ ! -x /usr/sbin/runc ] || rm -f "$dir"/dockerd/usr/{s,}bin/runc
fi

images=$dir/images; mkdir -p "$images"
if [ ! -s "$images/busybox.tar" ]; then
    echo "making the image busybox"
    root=$images/busybox-rootfs; rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,etc,tmp,root,proc,sys,dev,usr/bin,usr/sbin,var/www,home}
    chmod 1777 "$root/tmp"; chmod 700 "$root/root"
    cp /bin/busybox "$root/bin/busybox"
    for applet in $(/bin/busybox --list); do [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"; done
    printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\ndaemon:x:1:\naudio:x:29:daemon\nnogroup:x:65534:\n' >"$root/etc/group"
    echo 'hello from busybox' >"$root/var/www/index.html"
    "$(dirname "$0")/make_image.py" busybox "$root" "$images/busybox.tar" sh
fi
if [ ! -s "$images/debian.tar" ]; then
    echo "making the image debian with debootstrap (a minute)"
    root=$images/debian-rootfs; rm -rf "$root"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep "/$ID/\$" | head -n 1)
    debootstrap --variant=minbase --keyring="/usr/share/keyrings/$ID-archive-keyring.gpg" "$VERSION_CODENAME" "$root" "$mirror" >>"$log" 2>&1
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/cache/apt/*.bin "$root/debootstrap"
    : >"$root/etc/apt/sources.list"; : >"$root/etc/resolv.conf"; echo debian >"$root/etc/hostname"
    "$(dirname "$0")/make_image.py" debian "$root" "$images/debian.tar" bash
fi
if [ ! -s "$images/services.tar" ]; then
    echo "making the image services (nginx, PostgreSQL, Redis) with debootstrap (two minutes)"
    root=$images/services-rootfs; rm -rf "$root"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep "/$ID/\$" | head -n 1)
    debootstrap --variant=minbase --include=nginx-light,postgresql,redis-server --keyring="/usr/share/keyrings/$ID-archive-keyring.gpg" \
        "$VERSION_CODENAME" "$root" "$mirror" >>"$log" 2>&1
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,perl}/* "$root"/var/lib/postgresql/*/main
    rm -rf "$root"/usr/lib/*/lib{LLVM,z3}* "$root"/usr/lib/postgresql/*/lib/{llvmjit*,bitcode}  # PostgreSQL's compiler: half of the image
    : >"$root/etc/apt/sources.list"; : >"$root/etc/resolv.conf"; echo services >"$root/etc/hostname"
    ln -sfn "$(cd "$root" && echo usr/lib/postgresql/*/bin)" "$root/pg"
    "$(dirname "$0")/make_image.py" services "$root" "$images/services.tar" bash
    rm -rf "$root"
fi
