//! Settings of `serve`.
