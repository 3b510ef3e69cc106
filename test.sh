#!/bin/sh
# Runs all tests; first installs what they need and is missing (Debian packages by apt-get, cargo-nextest by
# cargo). The tests make their own network namespaces and state directories, and leave nothing.
set -eu
cd "$(dirname "$0")"
. scripts/need.sh
# Nobody answers questions here.
exec </dev/null

need cc:gcc cc:libc6-dev nft:nftables ip:iproute2 iptables:iptables ping:iputils-ping curl:curl \
    conntrack:conntrack sysctl:procps python3:python3 socat:socat unshare:util-linux ufw:ufw dbus-daemon:dbus-daemon \
    podman:podman crun:crun conmon:conmon /usr/lib/podman/aardvark-dns:aardvark-dns /usr/lib/podman/netavark:netavark \
    /bin/busybox:busybox-static newuidmap:uidmap slirp4netns:slirp4netns \
    /usr/lib/cni/portmap:containernetworking-plugins zsh:zsh fish:fish
need_idle firewalld firewalld:firewalld
need_idle containerd containerd:containerd

cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
# Where cargo installs programs, which need not be in the path.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest

# Where CI is set a test that cannot run fails. Elsewhere those that need br_netfilter say SKIPPED without it: to load
# it would change how this machine's own bridges filter.
if [ -n "${CI-}" ] && [ ! -e /proc/sys/net/bridge ] && modprobe br_netfilter; then
    trap 'modprobe -r br_netfilter' EXIT
fi

# Each test is a process of its own, because network namespaces belong to threads; that is what nextest does.
run() { printf '\n== %s\n' "$*"; "$@"; }
run cargo fmt --all --check
run cargo clippy --locked --workspace --all-targets -- -D warnings
run cargo nextest run --locked --workspace --no-fail-fast
run cargo test --locked --workspace --doc
