//! A whole topology, as read from a file.
