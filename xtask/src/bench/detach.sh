# detach.sh BRIDGE HOSTIF ADDRESS [HOSTPORT:PORT]…
set -e
bridge=$1 host_if=$2 address=$3
shift 3
for spec; do
    to=$address:${spec#*:}
    iptables -t nat -D PREROUTING -p tcp -m addrtype --dst-type LOCAL --dport "${spec%:*}" -j DNAT --to-destination "$to"
    iptables -t nat -D OUTPUT -p tcp -m addrtype --dst-type LOCAL --dport "${spec%:*}" -j DNAT --to-destination "$to"
    iptables -D FORWARD -d "$address" -o "$bridge" -p tcp --dport "${spec#*:}" -j ACCEPT
done
ip link del "$host_if"
