#!/bin/sh
# Builds wharf, and runs a web server in a container with port 5005 of the host published to its port 5000.
#
# "The host" is a network namespace of its own with an own /run, so nothing of this machine is changed. A second
# namespace is the outside: a cable leads to it, as from a host's network card to the next machine.
set -eu
cd "$(dirname "$0")/.."

if [ "${1-}" != inside ]; then
    . scripts/need.sh
    need cc:gcc cc:libc6-dev ip:iproute2 curl:curl python3:python3 unshare:util-linux
    cargo build --release --locked --package wharf
    # In a user namespace where we are not root.
    [ "$(id -u)" -eq 0 ] && user= || user=--map-root-user
    exec unshare $user --net --mount sh examples/web.sh inside
fi

wharf=${CARGO_TARGET_DIR:-target}/release/wharf
mount -t tmpfs tmpfs /run
export WHARF_STATE_DIR=/run/wharf-state
pages=/run/pages
outside_server=
finish() {
    status=$?
    trap - EXIT
    [ -z "$outside_server" ] || kill "$outside_server"
    "$wharf" rm -f web sibling >/dev/null || status=1
    "$wharf" network prune >/dev/null || status=1
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n# %s\n' "$1"; }
# Shows a command and runs it.
try() { printf '$ %s\n' "$*" | sed "s|$wharf|wharf|"; "$@"; }
fetch="curl --silent --show-error --max-time 3"
# A server needs a moment until it listens.
await() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        curl --silent --output /run/awaited --max-time 1 "$1" && return 0
        sleep 0.5
    done
    echo "nothing answers at $1" >&2
    return 1
}

say 'the host, and a machine outside'
ip link set lo up
ip netns add outside
ip link add eth0 type veth peer name eth0 netns outside
ip addr add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip -n outside addr add 192.0.2.2/24 dev eth0
ip -n outside link set eth0 up
ip -n outside link set lo up
# The outside tries the way to containers through the host.
ip -n outside route add 10.0.0.0/8 via 192.0.2.1
echo 'host 192.0.2.1 ---- 192.0.2.2 outside'

say 'a web server in a container, on port 5000; the host passes its port 5005 on'
mkdir "$pages"
echo 'Hello from the container.' >"$pages/index.html"
try "$wharf" run -d --name web -p 5005:5000 --workdir "$pages" -- python3 -m http.server 5000
try "$wharf" ps

say 'from the host'
await http://127.0.0.1:5005/
try $fetch http://127.0.0.1:5005/

say 'from outside, at the host'"'"'s address'
try ip netns exec outside $fetch http://192.0.2.1:5005/

address=$("$wharf" ps --json | python3 -c 'import json, sys
print(json.load(sys.stdin)[0]["networks"][0]["addresses"][0].split("/")[0])')
say 'from a sibling in a container of its own'
try "$wharf" run --rm --name sibling -- $fetch "http://$address:5000/"

say 'from outside, at the container'"'"'s own address: only what was published gets in'
if try ip netns exec outside $fetch "http://$address:5000/" 2>&1; then
    echo 'the container was reached past its published port' >&2
    exit 1
fi

say 'from the container to the outside, where it appears with the host'"'"'s address'
ip netns exec outside python3 -u -m http.server 8000 --bind 192.0.2.2 --directory "$pages" >>/run/outside.log 2>&1 &
outside_server=$!
await http://192.0.2.2:8000/
: >/run/outside.log
try "$wharf" exec web -- $fetch http://192.0.2.2:8000/
printf 'the server outside saw: '
cut -d' ' -f1 /run/outside.log | tail -n 1

say 'removed'
try "$wharf" rm -f web
try "$wharf" network prune
