//! What clients get back at length: blobs of their own account.

use modchain_link::Priority;
use modchain_wire::agent::{BlobChunk, BlobHead};
use modchain_wire::console::{BlobFetch, RefusalCode};
use modchain_wire::{CHUNK_BYTES_MAX, Data};

use super::{ConsoleSession, Failure, Reader, Writer, refuse};
use crate::store::blobs::BlobError;

impl ConsoleSession {
    /// Reads no further ahead than one piece: a reader that does not read holds one piece in memory, and QUIC's windows hold
    /// it back.
    pub(super) async fn blob_fetch(
        &self,
        writer: &mut Writer,
        reader: &mut Reader,
        fetch: BlobFetch,
    ) -> Result<(), Failure> {
        writer.set_priority(Priority::Bulk);
        let unwanted = writer.unwanted();
        let opened = self.context.services.blobs.open_blob(&self.actor.account, &fetch.digest).await;
        let mut blob = opened.map_err(|error| match error {
            BlobError::Missing => refuse::refusal(
                RefusalCode::MissingBlob,
                format!("there is no blob {} in the store of your account", fetch.digest),
                "what no open job needs is kept for an hour",
            ),
            other => refuse::by_blobs(other),
        })?;
        let send = async {
            writer.write(&BlobHead { bytes: blob.bytes() }.into()).await?;
            while let Some(bytes) = blob.next(CHUNK_BYTES_MAX).await.map_err(refuse::by_blobs)? {
                let data = Data::new(bytes).map_err(refuse::internal)?;
                writer.write(&BlobChunk { data }.into()).await?;
            }
            Ok(())
        };
        tokio::select! {
            sent = send => sent,
            failure = self.hung_up(reader, unwanted) => Err(failure),
        }
    }
}
