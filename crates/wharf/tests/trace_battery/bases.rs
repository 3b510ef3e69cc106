//! Networks that cases stand on, as scripts for the host.

/// Two containers on a bridge, made by hand, both families. The host forwards.
pub const BRIDGE: &str = "
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ip link add br-demo type bridge
    ip addr add 172.18.0.1/16 dev br-demo
    ip -6 addr add fd00:18::1/64 dev br-demo nodad
    ip link set br-demo up
    for n in 1 2; do
        ip netns add c$n
        ip link add veth-c$n type veth peer name eth0 netns c$n
        ip link set veth-c$n master br-demo up
        ip -n c$n link set lo up
        ip -n c$n addr add 172.18.0.${n}0/16 dev eth0
        ip -n c$n -6 addr add fd00:18::${n}0/64 dev eth0 nodad
        ip -n c$n link set eth0 up
        ip -n c$n route add default via 172.18.0.1
        ip -n c$n -6 route add default via fd00:18::1
    done";

/// The containers of [`BRIDGE`] are masqueraded by nft.
pub const MASQUERADE: &str = "
    nft -f - <<'END'
    table ip hand-nat {
        chain post {
            type nat hook postrouting priority srcnat
            ip saddr 172.18.0.0/16 oifname != br-demo masquerade
        }
    }
    table ip6 hand-nat {
        chain post {
            type nat hook postrouting priority srcnat
            ip6 saddr fd00:18::/64 oifname != br-demo masquerade
        }
    }
END";

/// They are masqueraded by iptables.
pub const MASQUERADE_IPTABLES: &str = "
    iptables-nft -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o br-demo -j MASQUERADE
    ip6tables-nft -t nat -A POSTROUTING -s fd00:18::/64 ! -o br-demo -j MASQUERADE";

/// A container c3 on a bridge of its own, br-two.
pub const SECOND_BRIDGE: &str = "
    ip link add br-two type bridge
    ip addr add 172.19.0.1/16 dev br-two
    ip -6 addr add fd00:19::1/64 dev br-two nodad
    ip link set br-two up
    ip netns add c3
    ip link add veth-c3 type veth peer name eth0 netns c3
    ip link set veth-c3 master br-two up
    ip -n c3 link set lo up
    ip -n c3 addr add 172.19.0.10/16 dev eth0
    ip -n c3 -6 addr add fd00:19::10/64 dev eth0 nodad
    ip -n c3 link set eth0 up
    ip -n c3 route add default via 172.19.0.1
    ip -n c3 -6 route add default via fd00:19::1";

/// Port 8080 of the host goes to port 80 of c2, by nft.
pub const PUBLISH: &str = "
    nft -f - <<'END'
    table ip hand-pub {
        chain pre {
            type nat hook prerouting priority dstnat
            fib daddr type local tcp dport 8080 dnat to 172.18.0.20:80
        }
        chain out {
            type nat hook output priority -100
            oifname lo tcp dport 8080 dnat to 172.18.0.20:80
        }
        chain post {
            type nat hook postrouting priority srcnat
            ip saddr 172.18.0.0/16 ip daddr 172.18.0.20 ct status dnat masquerade
        }
    }
    table ip6 hand-pub {
        chain pre {
            type nat hook prerouting priority dstnat
            fib daddr type local tcp dport 8080 dnat to [fd00:18::20]:80
        }
        chain post {
            type nat hook postrouting priority srcnat
            ip6 saddr fd00:18::/64 ip6 daddr fd00:18::20 ct status dnat masquerade
        }
    }
END";

/// Two networks of wharf: web and cache on front, db on back; web publishes 8080 to 80.
pub const WHARF: &str = "
    wharf network create front --subnet 10.88.1.0/24 --subnet fd00:88:1::/64 --bridge wharf-front
    wharf network create back --subnet 10.88.2.0/24 --subnet fd00:88:2::/64 --bridge wharf-back
    wharf create web --network front --ip 10.88.1.11 --ip fd00:88:1::11 -p 8080:80
    wharf create cache --network front --ip 10.88.1.12 --ip fd00:88:1::12
    wharf create db --network back --ip 10.88.2.11 --ip fd00:88:2::11";
