//! `view rebuild`: makes the view of ended jobs anew from the journal. `serve` does the same by itself where it finds none that
//! it can use; this is for doing it beforehand, or when somebody has reason to.

use std::path::Path;

use anyhow::Context;

use crate::engine::journal_dir;
use crate::feed::Feed;
use crate::store::journal::{identify, walk};
use crate::store::lock::DataLock;
use crate::store::view::{View, view_dir};

/// Makes it anew; tells the last event that is in it. Nobody may serve the data meanwhile. Blocks.
pub fn rebuild_view(data: &Path) -> anyhow::Result<u64> {
    let _lock = DataLock::take(data).context("the view is made while nobody serves")?;
    let dir = view_dir(data);
    let (id, asset) = identify(&journal_dir(data))?;
    drop(View::anew(&dir, id).context("the new view")?);
    let mut feed = Feed::open(id, asset, &dir).context("the new view")?;
    let mut written = Ok(());
    walk(&journal_dir(data), |events| {
        for event in &events {
            if written.is_ok() {
                written = feed.replay(event);
            }
        }
    })?;
    written.and_then(|()| feed.write_replayed())?;
    feed.view().flush()?;
    Ok(feed.view().applied())
}
