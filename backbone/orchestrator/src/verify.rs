//! `ledger verify`.
