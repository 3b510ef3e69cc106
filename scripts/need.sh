# Sourced by test.sh and examples/web.sh: installs the Debian packages of programs that are missing.

# need_idle SERVICE PROGRAM:PACKAGE…: the same for a service, which is neither started now nor when the machine starts:
# a firewall, say, would change this machine's own rules.
need_idle() {
    service=$1
    shift
    if command -v "${1%%:*}" >/dev/null 2>&1; then
        need "$@"
        return
    fi
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ] || [ "$(id -u)" -ne 0 ]; then
        policy=
    else
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    need "$@" || { [ -z "$policy" ] || rm $policy; return 1; }
    [ -z "$policy" ] || rm $policy
    DPKG_MAINTSCRIPT_PACKAGE=${1#*:} deb-systemd-helper disable "$service.service" >/dev/null
}

# need PROGRAM:PACKAGE…: nothing happens where all programs are there.
need() {
    missing=
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "these Debian packages are needed (apt-get install, as root):$missing" >&2
        return 1
    fi
    echo "installing:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null >&2
    # Word splitting is meant: one word for each package.
    # shellcheck disable=SC2086
    apt-get install -q -y --no-install-recommends $missing </dev/null >&2
}

# What stands in sbin is found by everyone.
PATH=$PATH:/usr/sbin:/sbin
