//! Sets as netlink attributes (`enum nft_set_attributes`, `nft_set_desc_attributes`, `nft_set_field_attributes`).

use crate::expr::{Expr, get_exprs, put_exprs};
use crate::set::{Set, SetFlags};
use crate::types::Family;
use crate::userdata::Userdata;
use crate::wire::{Attrs, Malformed, Writer};

pub(crate) const TABLE: u16 = 1;
pub(crate) const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_TYPE: u16 = 4;
const KEY_LEN: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LEN: u16 = 7;
const POLICY: u16 = 8;
const DESC: u16 = 9;
const ID: u16 = 10;
const TIMEOUT: u16 = 11;
const GC_INTERVAL: u16 = 12;
const USERDATA: u16 = 13;
const OBJ_TYPE: u16 = 15;
pub(crate) const HANDLE: u16 = 16;
const EXPR: u16 = 17;
const EXPRESSIONS: u16 = 18;
const DESC_SIZE: u16 = 1;
const DESC_CONCAT: u16 = 2;
const FIELD_LEN: u16 = 1;
const LIST_ELEM: u16 = 1;

impl Set {
    /// `id` is any number not used twice in the transaction; the kernel insists on one.
    pub(crate) fn encode(&self, id: u32, w: &mut Writer) {
        w.str(TABLE, &self.table);
        w.str(NAME, &self.name);
        w.u32(FLAGS, self.flags.0);
        w.u32(KEY_TYPE, self.key_type);
        w.u32(KEY_LEN, self.key_len);
        put_opt(w, DATA_TYPE, self.data_type);
        put_opt(w, DATA_LEN, self.data_len.filter(|len| *len > 0));
        put_opt(w, OBJ_TYPE, self.object_type);
        put_opt(w, POLICY, self.policy);
        w.u32(ID, id);
        self.encode_desc(w);
        if let Some(timeout) = self.timeout {
            w.u64(TIMEOUT, timeout);
        }
        put_opt(w, GC_INTERVAL, self.gc_interval);
        self.userdata.put(USERDATA, w);
        put_set_exprs(w, EXPR, EXPRESSIONS, &self.exprs);
    }

    fn encode_desc(&self, w: &mut Writer) {
        let concat = self.flags.has(SetFlags::CONCAT) && !self.fields.is_empty();
        if self.size.is_none() && !concat {
            return;
        }
        w.nest(DESC, |w| {
            put_opt(w, DESC_SIZE, self.size);
            if concat {
                w.nest(DESC_CONCAT, |w| {
                    self.fields
                        .iter()
                        .for_each(|len| w.nest(LIST_ELEM, |w| w.u32(FIELD_LEN, *len)));
                });
            }
        });
    }

    pub(crate) fn decode(family: Family, attrs: &Attrs<'_>) -> Result<Self, Malformed> {
        let (mut fields, mut size) = (Vec::new(), None);
        if let Some(desc) = attrs.nested(DESC)? {
            size = desc.u32(DESC_SIZE)?;
            for field in desc.list(DESC_CONCAT)? {
                fields.push(
                    field?
                        .u32(FIELD_LEN)?
                        .ok_or(Malformed("field without length"))?,
                );
            }
        }
        Ok(Self {
            family,
            table: attrs.need_str(TABLE)?,
            name: attrs.need_str(NAME)?,
            flags: SetFlags(attrs.u32(FLAGS)?.unwrap_or_default()),
            key_type: attrs.u32(KEY_TYPE)?.unwrap_or_default(),
            key_len: attrs.u32(KEY_LEN)?.unwrap_or_default(),
            fields,
            data_type: attrs.u32(DATA_TYPE)?,
            data_len: attrs.u32(DATA_LEN)?,
            object_type: attrs.u32(OBJ_TYPE)?,
            policy: attrs.u32(POLICY)?,
            size,
            timeout: attrs.u64(TIMEOUT)?,
            gc_interval: attrs.u32(GC_INTERVAL)?,
            exprs: get_set_exprs(attrs, EXPR, EXPRESSIONS)?,
            handle: attrs.u64(HANDLE)?,
            userdata: Userdata(attrs.get(USERDATA).unwrap_or_default().to_vec()),
        })
    }
}

fn put_opt(w: &mut Writer, id: u16, value: Option<u32>) {
    if let Some(value) = value {
        w.u32(id, value);
    }
}

/// One expression goes alone, several go as a list.
pub(crate) fn put_set_exprs(w: &mut Writer, one: u16, many: u16, exprs: &[Expr]) {
    match exprs {
        [] => {}
        [expr] => w.nest(one, |w| expr.encode(w)),
        exprs => put_exprs(many, exprs, w),
    }
}

pub(crate) fn get_set_exprs(
    attrs: &Attrs<'_>,
    one: u16,
    many: u16,
) -> Result<Vec<Expr>, Malformed> {
    match attrs.nested(one)? {
        Some(expr) => Ok(vec![Expr::decode(&expr)?]),
        None => get_exprs(attrs, many),
    }
}
