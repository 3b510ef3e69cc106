# attach.sh BRIDGE NETNS HOSTIF ADDRESS PREFIX GATEWAY [HOSTPORT:PORT]…
set -e
bridge=$1 netns=$2 host_if=$3 address=$4 prefix=$5 gateway=$6
shift 6
ip link add "$host_if" type veth peer name eth0 netns "$netns"
ip link set "$host_if" master "$bridge"
ip link set "$host_if" up
ip -n "$netns" link set lo up
ip -n "$netns" link set eth0 up
ip -n "$netns" addr add "$address/$prefix" dev eth0
ip -n "$netns" route add default via "$gateway"
for spec; do
    to=$address:${spec#*:}
    iptables -t nat -A PREROUTING -p tcp -m addrtype --dst-type LOCAL --dport "${spec%:*}" -j DNAT --to-destination "$to"
    iptables -t nat -A OUTPUT -p tcp -m addrtype --dst-type LOCAL --dport "${spec%:*}" -j DNAT --to-destination "$to"
    iptables -A FORWARD -d "$address" -o "$bridge" -p tcp --dport "${spec#*:}" -j ACCEPT
done
