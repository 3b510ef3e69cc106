//! Other tools' policies on forwarded packets.

use wharf_core::network::NetworkSpec;

use crate::api::Note;
use crate::engine::Engine;

impl Engine {
    pub(super) fn open_doors(&mut self, _net: &NetworkSpec) {}
    pub(super) fn close_doors(&mut self, _net: &NetworkSpec) {}
    pub(super) fn closed_doors(&mut self, _net: &NetworkSpec) -> Vec<Note> {
        Vec::new()
    }
}
