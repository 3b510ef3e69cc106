//! Programs in namespaces, with the real kernel, in a private host of namespaces.

mod detached;
mod files;
mod foreground;
mod named;
mod support;
