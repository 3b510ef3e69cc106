//! Families and hooks, named as `nft` names them.

use std::fmt;

/// Address family of a table (`enum` at `NFPROTO_*`, `linux/netfilter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6 together, `NFPROTO_INET`.
    Inet,
    /// IPv4, `NFPROTO_IPV4`.
    Ip,
    /// IPv6, `NFPROTO_IPV6`.
    Ip6,
    /// ARP, `NFPROTO_ARP`.
    Arp,
    /// Frames passing a bridge, `NFPROTO_BRIDGE`.
    Bridge,
    /// Frames at one device, `NFPROTO_NETDEV`.
    Netdev,
    /// A number this crate does not know.
    Other(u8),
}

impl Family {
    /// The kernel's number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Arp => 3,
            Self::Bridge => 7,
            Self::Netdev => 5,
            Self::Other(n) => n,
        }
    }

    /// The family with the kernel's number `n`.
    #[must_use]
    pub const fn from_number(n: u8) -> Self {
        match n {
            1 => Self::Inet,
            2 => Self::Ip,
            10 => Self::Ip6,
            3 => Self::Arp,
            7 => Self::Bridge,
            5 => Self::Netdev,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet => f.write_str("inet"),
            Self::Ip => f.write_str("ip"),
            Self::Ip6 => f.write_str("ip6"),
            Self::Arp => f.write_str("arp"),
            Self::Bridge => f.write_str("bridge"),
            Self::Netdev => f.write_str("netdev"),
            Self::Other(n) => write!(f, "family{n}"),
        }
    }
}

/// Where a base chain is attached. The number depends on the family (`enum nf_inet_hooks`, `nf_dev_hooks`,
/// `NF_ARP_*`), hence a name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To a local process (`arp`: incoming).
    Input,
    /// Through this host.
    Forward,
    /// From a local process (`arp`: outgoing).
    Output,
    /// After routing.
    Postrouting,
    /// As the device hands the frame over (`netdev`, `inet`).
    Ingress,
    /// As the device gets the frame (`netdev`).
    Egress,
    /// A number this crate does not know.
    Other(u32),
}

impl Hook {
    /// The kernel's number in `family`; `None` if the family has no such hook.
    #[must_use]
    pub const fn number(self, family: Family) -> Option<u32> {
        Some(match (family, self) {
            (_, Self::Other(n)) => n,
            (Family::Netdev, Self::Ingress) | (Family::Arp, Self::Input) => 0,
            (Family::Netdev, Self::Egress) | (Family::Arp, Self::Output) => 1,
            (Family::Netdev | Family::Arp, _) | (_, Self::Egress) => return None,
            (_, Self::Prerouting) => 0,
            (_, Self::Input) => 1,
            (_, Self::Forward) => 2,
            (_, Self::Output) => 3,
            (_, Self::Postrouting) => 4,
            (_, Self::Ingress) => 5,
        })
    }

    /// The hook with the kernel's number `n` in `family`.
    #[must_use]
    pub const fn from_number(family: Family, n: u32) -> Self {
        match (family, n) {
            (Family::Netdev, 0) => Self::Ingress,
            (Family::Netdev, 1) => Self::Egress,
            (Family::Arp, 0) => Self::Input,
            (Family::Arp, 1) => Self::Output,
            (Family::Netdev | Family::Arp, n) => Self::Other(n),
            (_, 0) => Self::Prerouting,
            (_, 1) => Self::Input,
            (_, 2) => Self::Forward,
            (_, 3) => Self::Output,
            (_, 4) => Self::Postrouting,
            (_, 5) => Self::Ingress,
            (_, n) => Self::Other(n),
        }
    }
}

/// A set of `u32` flags with named bits.
macro_rules! flags {
    ($(#[$m:meta])* $name:ident { $( $flag:ident = $bit:literal $c:literal ),* $(,)? }) => {
        $(#[$m])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u32);
        impl $name {
            $( #[doc = concat!("`", $c, "`.")] pub const $flag: Self = Self($bit); )*
            /// Whether every bit of `other` is set.
            #[must_use]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }
        impl std::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
        impl std::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }
    };
}
pub(crate) use flags;
