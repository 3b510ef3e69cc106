# network.sh BRIDGE GATEWAY/PREFIX SUBNET
set -e
ip link add "$1" type bridge
ip addr add "$2" dev "$1"
ip link set "$1" up
echo 1 > /proc/sys/net/ipv4/ip_forward
iptables -t nat -A POSTROUTING -s "$3" ! -o "$1" -j MASQUERADE
iptables -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
iptables -A FORWARD -i "$1" -j ACCEPT
