# publish.sh BRIDGE ADDRESS [HOSTPORT:PORT]…
set -e
bridge=$1 address=$2
shift 2
for spec; do
    to=$address:${spec#*:}
    iptables -t nat -A PREROUTING -p tcp -m addrtype --dst-type LOCAL --dport "${spec%:*}" -j DNAT --to-destination "$to"
    iptables -t nat -A OUTPUT -p tcp -m addrtype --dst-type LOCAL --dport "${spec%:*}" -j DNAT --to-destination "$to"
    iptables -A FORWARD -d "$address" -o "$bridge" -p tcp --dport "${spec#*:}" -j ACCEPT
done
