//! Blobs, content-addressed per account: a digest alone opens nothing.

use bytes::Bytes;
use modchain_types::{AccountId, Digest, JobId};

/// Why a blob could not be kept or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlobError {
    /// Larger than one blob may be.
    #[error("a blob may have {limit} bytes, this one has {bytes}")]
    TooLarge {
        /// What was announced or sent.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The account's store is full.
    #[error("the account's blob store is full: {limit} bytes")]
    Quota {
        /// The limit.
        limit: u64,
    },
    /// The bytes are not those that were announced.
    #[error("the bytes sent do not match the announced {what}")]
    Mismatch {
        /// `digest` or `size`.
        what: &'static str,
    },
    /// Not in this account's store.
    #[error("there is no such blob")]
    Missing,
    /// The bytes on disk are not those that were put.
    #[error("the blob is damaged on disk")]
    Damaged,
    /// The disk said no.
    #[error("the blob store failed: {0}")]
    Disk(String),
}

/// All blobs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobStore {}

/// How a put goes on.
#[derive(Debug)]
pub enum Put {
    /// It is there already: nothing to send.
    Existing,
    /// Send it.
    Write(BlobWriter),
}

impl BlobStore {
    /// Begins a put, within the quota.
    pub async fn begin(&self, _account: &AccountId, _digest: Digest, _bytes: u64) -> Result<Put, BlobError> {
        todo!()
    }

    /// Puts bytes that are in memory; tells their digest.
    pub async fn put(&self, _account: &AccountId, _bytes: Bytes) -> Result<Digest, BlobError> {
        todo!()
    }

    /// The size of a blob if it is there.
    pub fn size(&self, _account: &AccountId, _digest: &Digest) -> Option<u64> {
        todo!()
    }

    /// A small blob whole, checked against its digest.
    pub async fn get(&self, _account: &AccountId, _digest: &Digest, _max_bytes: u64) -> Result<Bytes, BlobError> {
        todo!()
    }

    /// Opens a blob for reading in pieces.
    pub async fn open_blob(&self, _account: &AccountId, _digest: &Digest) -> Result<BlobReader, BlobError> {
        todo!()
    }

    /// Notes that an open job needs these blobs of its account. Replaces what was noted for the job before.
    pub fn reference(&self, _job: JobId, _account: &AccountId, _digests: &[Digest]) {
        todo!()
    }

    /// The job has ended.
    pub fn release(&self, _job: JobId) {
        todo!()
    }
}

/// A blob on its way in. Dropping it unfinished leaves nothing behind.
#[derive(Debug)]
pub struct BlobWriter {}

impl BlobWriter {
    /// Takes the next bytes.
    pub async fn write(&mut self, _data: Bytes) -> Result<(), BlobError> {
        todo!()
    }

    /// Checks size and digest and makes it durable.
    pub async fn finish(self) -> Result<(), BlobError> {
        todo!()
    }
}

/// A blob on its way out.
#[derive(Debug)]
pub struct BlobReader {}

impl BlobReader {
    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        todo!()
    }

    /// The next bytes, at most `max_bytes`; `None` at the end.
    pub async fn next(&mut self, _max_bytes: usize) -> Result<Option<Bytes>, BlobError> {
        todo!()
    }
}
