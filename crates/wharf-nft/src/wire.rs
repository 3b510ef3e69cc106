//! Netlink messages and attributes as bytes (`linux/netlink.h`): writing with length checks, reading without panics.

/// Bytes that do not follow the format; the text names the part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink data: {0}")]
pub struct Malformed(pub &'static str);

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: the type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const TYPE_MASK: u16 = 0x3fff;
/// Expressions may hold expressions; input deeper than this is refused rather than followed.
const MAX_DEPTH: u8 = 12;
/// Size of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// Appends messages and attributes; remembers whether a length outgrew its 16 bits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    pub(crate) buf: Vec<u8>,
    pub(crate) overflow: bool,
}

impl Writer {
    /// Starts a message: `nlmsghdr` and `nfgenmsg`. Returns its offset for [`Writer::finish`].
    pub(crate) fn start(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        family: u8,
        res_id: u16,
    ) -> usize {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(&flags.to_ne_bytes());
        self.buf.extend_from_slice(&seq.to_ne_bytes());
        self.buf.extend_from_slice(&[0; 4]);
        self.buf.extend_from_slice(&[family, 0]);
        self.buf.extend_from_slice(&res_id.to_be_bytes());
        at
    }

    /// Writes the length of the message that began at `at`.
    pub(crate) fn finish(&mut self, at: usize) {
        let len = u32::try_from(self.buf.len() - at).unwrap_or(u32::MAX);
        self.buf[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    pub(crate) fn attr(&mut self, id: u16, payload: &[u8]) {
        let Ok(len) = u16::try_from(payload.len() + 4) else {
            self.overflow = true;
            return;
        };
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&id.to_ne_bytes());
        self.buf.extend_from_slice(payload);
        self.pad();
    }

    fn pad(&mut self) {
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
    }

    pub(crate) fn u8(&mut self, id: u16, v: u8) {
        self.attr(id, &[v]);
    }

    pub(crate) fn u16(&mut self, id: u16, v: u16) {
        self.attr(id, &v.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, id: u16, v: u32) {
        self.attr(id, &v.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, id: u16, v: u64) {
        self.attr(id, &v.to_be_bytes());
    }

    /// A string with its closing NUL (`NLA_NUL_STRING`).
    pub(crate) fn str(&mut self, id: u16, v: &str) {
        let mut bytes = v.as_bytes().to_vec();
        bytes.push(0);
        self.attr(id, &bytes);
    }

    pub(crate) fn nest(&mut self, id: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&(id | NESTED).to_ne_bytes());
        fill(self);
        match u16::try_from(self.buf.len() - at) {
            Ok(len) => self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
    }
}

/// Attributes below this number are found without looking at the others.
const INDEXED: usize = 16;

/// The attributes of one nesting level, well-formed. There is no list of them: a ruleset has hundreds of thousands of
/// levels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attrs<'a> {
    bytes: &'a [u8],
    depth: u8,
    /// Where the first attribute of each small number begins, plus one; zero if there is none.
    at: [u32; INDEXED],
}

/// An attribute, and the bytes after it.
type Split<'a> = ((u16, &'a [u8]), &'a [u8]);

/// Takes the first attribute off `bytes`; fewer bytes than its header are padding.
#[inline]
fn split(bytes: &[u8]) -> Result<Option<Split<'_>>, Malformed> {
    let Some((&[l0, l1, t0, t1], _)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_ne_bytes([l0, l1]));
    let payload = bytes.get(4..len).ok_or(Malformed("attribute length"))?;
    let id = u16::from_ne_bytes([t0, t1]) & TYPE_MASK;
    let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Ok(Some(((id, payload), rest)))
}

impl<'a> Attrs<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::at_depth(bytes, 0)
    }

    fn at_depth(bytes: &'a [u8], depth: u8) -> Result<Self, Malformed> {
        if depth > MAX_DEPTH {
            return Err(Malformed("nested too deeply"));
        }
        let (mut left, mut at) = (bytes, [0; INDEXED]);
        while let Some(((id, _), rest)) = split(left)? {
            if let Some(place @ 0) = at.get_mut(usize::from(id)) {
                *place = u32::try_from(bytes.len() - left.len() + 1)
                    .map_err(|_| Malformed("too long"))?;
            }
            left = rest;
        }
        Ok(Self { bytes, depth, at })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut left = self.bytes;
        std::iter::from_fn(move || {
            let (attr, rest) = split(left).ok().flatten()?;
            left = rest;
            Some(attr)
        })
    }

    pub(crate) fn get(&self, id: u16) -> Option<&'a [u8]> {
        match self.at.get(usize::from(id)) {
            Some(0) => None,
            Some(place) => {
                let from = self.bytes.get(*place as usize - 1..)?;
                split(from).ok().flatten().map(|((_, payload), _)| payload)
            }
            None => self.iter().find(|(i, _)| *i == id).map(|(_, p)| p),
        }
    }

    /// Refuses attributes outside `known`: what is not known could change the meaning. Padding is empty and passes.
    pub(crate) fn only(&self, known: &[u16]) -> Result<(), Malformed> {
        match self
            .iter()
            .all(|(id, p)| p.is_empty() || known.contains(&id))
        {
            true => Ok(()),
            false => Err(Malformed("unknown attribute")),
        }
    }

    pub(crate) fn nested(&self, id: u16) -> Result<Option<Attrs<'a>>, Malformed> {
        self.get(id).map(|p| self.deeper(p)).transpose()
    }

    /// Parses `payload` as the next level below this one.
    pub(crate) fn deeper(&self, payload: &'a [u8]) -> Result<Attrs<'a>, Malformed> {
        Attrs::at_depth(payload, self.depth + 1)
    }

    /// The nested lists inside attribute `id`, whatever their own number (usually `NFTA_LIST_ELEM`).
    pub(crate) fn list(
        &self,
        id: u16,
    ) -> Result<impl Iterator<Item = Result<Attrs<'a>, Malformed>> + use<'a>, Malformed> {
        let outer = self.nested(id)?;
        let each = outer.into_iter().flat_map(|outer| {
            let inner = outer.iter();
            inner.map(move |(_, p)| outer.deeper(p))
        });
        Ok(each)
    }

    pub(crate) fn u8(&self, id: u16) -> Result<Option<u8>, Malformed> {
        self.fixed::<1>(id).map(|v| v.map(|[b]| b))
    }

    pub(crate) fn u16(&self, id: u16) -> Result<Option<u16>, Malformed> {
        self.fixed(id).map(|v| v.map(u16::from_be_bytes))
    }

    pub(crate) fn u32(&self, id: u16) -> Result<Option<u32>, Malformed> {
        self.fixed(id).map(|v| v.map(u32::from_be_bytes))
    }

    pub(crate) fn u64(&self, id: u16) -> Result<Option<u64>, Malformed> {
        self.fixed(id).map(|v| v.map(u64::from_be_bytes))
    }

    pub(crate) fn fixed<const N: usize>(&self, id: u16) -> Result<Option<[u8; N]>, Malformed> {
        let as_array = |p: &[u8]| {
            p.try_into()
                .map_err(|_| Malformed("number of the wrong size"))
        };
        self.get(id).map(as_array).transpose()
    }

    pub(crate) fn str(&self, id: u16) -> Result<Option<String>, Malformed> {
        self.get(id).map(text).transpose()
    }

    pub(crate) fn need_str(&self, id: u16) -> Result<String, Malformed> {
        self.name(id).map(str::to_owned)
    }

    /// A name that must be there.
    pub(crate) fn name(&self, id: u16) -> Result<&'a str, Malformed> {
        let bytes = self.get(id).ok_or(Malformed("a name is missing"))?;
        borrowed(bytes)
    }
}

/// Text up to the first NUL.
pub(crate) fn text(bytes: &[u8]) -> Result<String, Malformed> {
    borrowed(bytes).map(str::to_owned)
}

/// Text up to the first NUL, where it stands.
fn borrowed(bytes: &[u8]) -> Result<&str, Malformed> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).map_err(|_| Malformed("text is not UTF-8"))
}

/// One received message: header fields and the bytes after `nlmsghdr`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the first message off `bytes`.
    pub(crate) fn split(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Malformed> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *head;
        let len = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let body = bytes.get(HEADER..len).ok_or(Malformed("message length"))?;
        let message = Self {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        };
        Ok(Some((
            message,
            bytes.get(len.next_multiple_of(4)..).unwrap_or_default(),
        )))
    }

    /// Family, resource id and attributes after `struct nfgenmsg`.
    pub(crate) fn netfilter(&self) -> Result<(u8, u16, Attrs<'a>), Malformed> {
        let Some((&[family, _, r0, r1], rest)) = self.body.split_first_chunk::<4>() else {
            return Err(Malformed("nfgenmsg is missing"));
        };
        Ok((family, u16::from_be_bytes([r0, r1]), Attrs::parse(rest)?))
    }
}
