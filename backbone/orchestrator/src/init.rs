//! `init`: makes a data directory and identities.
