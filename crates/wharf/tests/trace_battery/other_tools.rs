//! Networks that Docker, CNI plugins and Netavark made, and what breaks in them.

use crate::cases;

/// Two bridges of Docker's with a container each.
const DOCKER_LINKS: &str = "
    sysctl -qw net.ipv4.ip_forward=1
    i=1
    for n in A B; do
        ip link add br$n type bridge; ip addr add 10.7$i.0.1/24 dev br$n; ip link set br$n up
        ip netns add d$i; ip link add veth$n type veth peer name eth0 netns d$i; ip link set veth$n master br$n up
        ip -n d$i link set lo up; ip -n d$i addr add 10.7$i.0.11/24 dev eth0; ip -n d$i link set eth0 up
        ip -n d$i route add default via 10.7$i.0.1
        i=$((i+1))
    done";

/// What dockerd up to 27 writes for them; d1 publishes 8080 to 80, d2 8180 to 80.
const DOCKER_27: &str = "
    iptables-nft-restore <<'END'
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o brB -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o brB -j DOCKER
-A FORWARD -i brB ! -o brB -j ACCEPT
-A FORWARD -i brB -o brB -j ACCEPT
-A FORWARD -o brA -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o brA -j DOCKER
-A FORWARD -i brA ! -o brA -j ACCEPT
-A FORWARD -i brA -o brA -j ACCEPT
-A DOCKER -d 10.71.0.11/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -d 10.72.0.11/32 ! -i brB -o brB -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i brB ! -o brB -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -i brA ! -o brA -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o brB -j DROP
-A DOCKER-ISOLATION-STAGE-2 -o brA -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.72.0.0/24 ! -o brB -j MASQUERADE
-A POSTROUTING -s 10.71.0.0/24 ! -o brA -j MASQUERADE
-A POSTROUTING -s 10.71.0.11/32 -d 10.71.0.11/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.72.0.11/32 -d 10.72.0.11/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -i brB -j RETURN
-A DOCKER -i brA -j RETURN
-A DOCKER ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.71.0.11:80
-A DOCKER ! -i brB -p tcp -m tcp --dport 8180 -j DNAT --to-destination 10.72.0.11:80
COMMIT
END";

/// What dockerd from 28 on writes for them.
const DOCKER_29: &str = "
    iptables-nft-restore <<'END'
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 10.71.0.11/32 ! -i brA -j DROP
-A PREROUTING -d 10.72.0.11/32 ! -i brB -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 10.71.0.11/32 ! -i brA -o brA -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -d 10.72.0.11/32 ! -i brB -o brB -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i brA -o brA -j DROP
-A DOCKER ! -i brB -o brB -j DROP
-A DOCKER-BRIDGE -o brA -j DOCKER
-A DOCKER-BRIDGE -o brB -j DOCKER
-A DOCKER-CT -o brA -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o brB -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i brA -j ACCEPT
-A DOCKER-FORWARD -i brB -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.71.0.0/24 ! -o brA -j MASQUERADE
-A POSTROUTING -s 10.72.0.0/24 ! -o brB -j MASQUERADE
-A DOCKER ! -i brA -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.71.0.11:80
-A DOCKER ! -i brB -p tcp -m tcp --dport 8180 -j DNAT --to-destination 10.72.0.11:80
COMMIT
END";

const SERVES: &str = "d1:80/tcp d2:80/tcp host:5000/tcp outside:80/tcp outside:53/udp";

/// Two containers by the CNI plugins bridge, portmap and firewall; the first publishes 8080 to 80.
const CNI: &str = "
    mkdir -p /run/cni /var/lib/cni 2>/dev/null || true; mount -t tmpfs t /var/lib/cni
    export CNI_PATH=/usr/lib/cni CNI_IFNAME=eth0 CNI_COMMAND=ADD
    bridge='{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"type\":\"bridge\",\"bridge\":\"cni0\",\"isGateway\":true,\"ipMasq\":true,\"ipam\":{\"type\":\"host-local\",\"subnet\":\"10.85.0.0/24\",\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}}'
    for n in 1 2; do
        ip netns add k$n; ip -n k$n link set lo up
        export CNI_CONTAINERID=k$n CNI_NETNS=/run/netns/k$n
        result=$(printf %s \"$bridge\" | /usr/lib/cni/bridge)
        ports='[]'; [ $n = 2 ] || ports='[{\"hostPort\":8080,\"containerPort\":80,\"protocol\":\"tcp\"}]'
        printf '{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"type\":\"portmap\",\"runtimeConfig\":{\"portMappings\":%s},\"prevResult\":%s}' \"$ports\" \"$result\" | /usr/lib/cni/portmap >/dev/null
        printf '{\"cniVersion\":\"0.4.0\",\"name\":\"n\",\"type\":\"firewall\",\"backend\":\"iptables\",\"prevResult\":%s}' \"$result\" | /usr/lib/cni/firewall >/dev/null
    done";

const CNI_SERVES: &str = "k1:80/tcp k2:80/tcp host:5000/tcp outside:80/tcp outside:53/udp";

/// Two containers by Netavark on podman0; the first publishes 8080 to 80.
const NETAVARK: &str = "
    mkdir -p /run/containers/networks
    for n in 1 2; do
        ip netns add p$n; ip -n p$n link set lo up
        ports='[]'; [ $n = 2 ] || ports='[{\"host_ip\":\"\",\"container_port\":80,\"host_port\":8080,\"range\":1,\"protocol\":\"tcp\"}]'
        printf '{\"container_id\":\"5ebb60c3352096a6355d5b9f1b529ab9d3158f7d3e558724081763f916fbc46%s\",\"container_name\":\"p%s\",\"port_mappings\":%s,\"networks\":{\"podman\":{\"static_ips\":[\"10.89.0.1%s\"],\"interface_name\":\"eth0\"}},\"network_info\":{\"podman\":{\"name\":\"podman\",\"id\":\"2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9\",\"driver\":\"bridge\",\"network_interface\":\"podman0\",\"subnets\":[{\"subnet\":\"10.89.0.0/16\",\"gateway\":\"10.89.0.1\"}],\"ipv6_enabled\":false,\"internal\":false,\"dns_enabled\":false,\"ipam_options\":{\"driver\":\"host-local\"}}}}' $n $n \"$ports\" $n \\
            | /usr/lib/podman/netavark --config /run/containers/networks --rootless=false setup /run/netns/p$n >/dev/null
    done";

const NETAVARK_SERVES: &str = "p1:80/tcp p2:80/tcp host:5000/tcp outside:80/tcp outside:53/udp";

cases! {
    docker_outside: { on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES, ask: "/run/netns/d1 192.0.2.50:53/udp" }
    docker_published: { on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES, ask: "outside 10.0.2.2:8080" }
    docker_published_from_the_host: { on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES, ask: "host 10.0.2.2:8080" }
    docker_29_outside: { on: &[DOCKER_LINKS, DOCKER_29], serves: SERVES, ask: "/run/netns/d1 192.0.2.50:80" }
    docker_29_published: { on: &[DOCKER_LINKS, DOCKER_29], serves: SERVES, ask: "outside 10.0.2.2:8180" }
    docker_29_published_across: { on: &[DOCKER_LINKS, DOCKER_29], serves: SERVES, ask: "/run/netns/d2 10.0.2.2:8080" }
    docker_isolation: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        ask: "/run/netns/d1 10.72.0.11:80",
        says: "dropped firewall-rule host ip filter DOCKER-ISOLATION-STAGE-2 handle *",
        owner: "docker",
    }
    docker_29_isolation: {
        on: &[DOCKER_LINKS, DOCKER_29], serves: SERVES,
        ask: "/run/netns/d1 10.72.0.11:80",
        says: "dropped firewall-rule host ip raw PREROUTING handle *",
        owner: "docker",
        also: &[],
    }
    docker_direct: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: "d1:81/tcp", outside: "",
        ask: "outside 10.71.0.11:81",
        says: "dropped firewall-policy host ip filter FORWARD",
        owner: "docker",
    }
    docker_29_direct: {
        on: &[DOCKER_LINKS, DOCKER_29], serves: SERVES, outside: "",
        ask: "outside 10.71.0.11:80",
        says: "dropped firewall-rule host ip raw PREROUTING handle *",
        owner: "docker",
    }
    docker_user_drops: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        breaks: "iptables-nft -I DOCKER-USER -i up0 -p tcp --dport 80 -j DROP",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-rule host ip filter DOCKER-USER handle *",
    }
    docker_masquerade_flushed: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        breaks: "iptables-nft -t nat -D POSTROUTING -s 10.71.0.0/24 ! -o brA -j MASQUERADE",
        ask: "/run/netns/d1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
    docker_filter_flushed: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        breaks: "iptables-nft -F FORWARD",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-policy host ip filter FORWARD",
        owner: "docker",
    }
    docker_published_to_the_old_address: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        breaks: "ip -n d1 addr del 10.71.0.11/24 dev eth0; ip -n d1 addr add 10.71.0.12/24 dev eth0; ip -n d1 route add default via 10.71.0.1",
        ask: "outside 10.0.2.2:8080",
        says: "dropped publish-shadowed host ip nat DOCKER handle *",
        owner: "docker",
        no_fix: "Docker has to be told: others of its rules name the old address, too",
    }
    docker_without_proxy_to_loopback: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        ask: "host 127.0.0.1:8080",
        says: "rejected not-listening host 8080/tcp",
        no_fix: "Docker has to be told",
    }
    docker_not_published: {
        on: &[DOCKER_LINKS, DOCKER_27], serves: SERVES,
        ask: "outside 10.0.2.2:9999",
        says: "rejected not-listening host 9999/tcp",
        no_fix: "nobody can tell which container was meant",
    }
    docker_bridged: {
        on: &[DOCKER_LINKS, DOCKER_27, "ip netns add d3; ip link add vethC type veth peer name eth0 netns d3; ip link set vethC master brA up
            ip -n d3 addr add 10.71.0.13/24 dev eth0; ip -n d3 link set eth0 up"],
        serves: "d1:80/tcp d3:80/tcp", bridge_nf_call: true,
        breaks: "iptables-nft -R FORWARD 10 -i brA -o brA -j DROP",
        ask: "/run/netns/d3 10.71.0.11:80",
        says: "dropped bridge-netfilter host net.bridge.bridge-nf-call-iptables",
    }
    cni_outside: { on: &[CNI], serves: CNI_SERVES, ask: "/run/netns/k1 192.0.2.50:80" }
    cni_published: { on: &[CNI], serves: CNI_SERVES, ask: "outside 10.0.2.2:8080" }
    cni_published_from_a_container: { on: &[CNI], serves: CNI_SERVES, ask: "/run/netns/k2 10.0.2.2:8080" }
    cni_between: { on: &[CNI], serves: CNI_SERVES, ask: "/run/netns/k2 10.85.0.2:80" }
    cni_forwarding_off: {
        on: &[CNI], serves: CNI_SERVES,
        breaks: "sysctl -qw net.ipv4.ip_forward=0",
        ask: "/run/netns/k1 192.0.2.50:80",
        says: "dropped forwarding-disabled host net.ipv4.ip_forward",
    }
    cni_admin_drops: {
        on: &[CNI], serves: CNI_SERVES,
        breaks: "iptables-nft -A CNI-ADMIN -p tcp --dport 80 -j DROP",
        ask: "/run/netns/k1 192.0.2.50:80",
        says: "dropped firewall-rule host ip filter CNI-ADMIN handle *",
    }
    cni_masquerade_gone: {
        on: &[CNI], serves: CNI_SERVES,
        breaks: "iptables-nft -t nat -F POSTROUTING",
        ask: "/run/netns/k2 192.0.2.50:53/udp",
        says: "unanswered no-masquerade host up0",
    }
    cni_off_the_bridge: {
        on: &[CNI], serves: CNI_SERVES,
        breaks: "ip link set $(ip -o link show master cni0 | head -1 | sed 's/^[0-9]*: //; s/@.*//') nomaster",
        ask: "/run/netns/k1 10.85.0.3:80",
        says: "dropped not-on-bridge host veth*",
    }
    netavark_outside: { on: &[NETAVARK], serves: NETAVARK_SERVES, ask: "/run/netns/p1 192.0.2.50:80" }
    netavark_published: { on: &[NETAVARK], serves: NETAVARK_SERVES, ask: "outside 10.0.2.2:8080" }
    netavark_published_from_loopback: { on: &[NETAVARK], serves: NETAVARK_SERVES, ask: "host 127.0.0.1:8080" }
    netavark_between: { on: &[NETAVARK], serves: NETAVARK_SERVES, ask: "/run/netns/p2 10.89.0.11:80" }
    netavark_policy: {
        on: &[NETAVARK], serves: NETAVARK_SERVES,
        breaks: "iptables-nft -P FORWARD DROP; iptables-nft -F NETAVARK_FORWARD",
        ask: "outside 10.0.2.2:8080",
        says: "dropped firewall-policy host ip filter FORWARD",
    }
    netavark_rule: {
        on: &[NETAVARK], serves: NETAVARK_SERVES,
        breaks: "iptables-nft -I FORWARD -d 10.89.0.11 -j REJECT",
        ask: "outside 10.0.2.2:8080",
        says: "rejected firewall-rule host ip filter FORWARD handle *",
    }
    netavark_nat_flushed: {
        on: &[NETAVARK], serves: NETAVARK_SERVES,
        breaks: "iptables-nft -t nat -F POSTROUTING",
        ask: "/run/netns/p1 192.0.2.50:80",
        says: "unanswered no-masquerade host up0",
    }
}
