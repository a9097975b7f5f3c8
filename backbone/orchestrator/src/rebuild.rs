//! `view rebuild`: makes the view of ended jobs anew from the journal. `serve` does the same by itself where it finds none that
//! it can use; this is for doing it beforehand, or when somebody has reason to.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

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
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("the old view"),
        _ => {}
    }
    let (id, asset) = identify(&journal_dir(data))?;
    let view = Arc::new(View::open(&dir, id).context("the new view")?);
    let mut feed = Feed::new(id, asset, Arc::clone(&view));
    let mut written = Ok(());
    walk(&journal_dir(data), |events| {
        for event in &events {
            if written.is_ok() {
                written = feed.replay(event);
            }
        }
    })?;
    written.and_then(|()| feed.write_replayed())?;
    view.flush()?;
    Ok(view.applied())
}
