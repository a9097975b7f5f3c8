//! Streams that go on: state (snapshot and deltas) and events.

use modchain_link::Priority;
use modchain_types::{JobId, List};
use modchain_wire::console::{CaughtUp, EventsOpen, EventsPage, JobRef, RefusalCode, StateOpen};

use super::{ConsoleSession, Failure, Reader, Writer, refuse};
use crate::feed::{Change, Cursor, EventFilter};

impl ConsoleSession {
    pub(super) async fn state(&self, writer: &mut Writer, reader: &mut Reader, open: StateOpen) -> Result<(), Failure> {
        writer.set_priority(Priority::State);
        let unwanted = writer.unwanted();
        let only = match &open.job {
            Some(name) => Some(self.resolve(name).await?),
            None => None,
        };
        let watch = async {
            let feed = &self.context.feed;
            let mut cursor = match open.resume {
                Some((journal, upto)) => feed.resume(journal, upto).await?,
                None => None,
            };
            loop {
                let from = match cursor.take() {
                    Some(from) => from,
                    None => self.snapshot(writer, only, open.job.as_ref()).await?,
                };
                match feed.change(&self.actor, only, from).await? {
                    Change::Delta(delta, next) => {
                        writer.write(&(*delta).into()).await?;
                        cursor = Some(next);
                    }
                    Change::Reset => {}
                }
            }
        };
        tokio::select! {
            ended = watch => ended,
            failure = self.hung_up(reader, unwanted) => Err(failure),
        }
    }

    /// Of one job, by the name that it was asked for by, or of everything.
    async fn snapshot(
        &self,
        writer: &mut Writer,
        only: Option<JobId>,
        name: Option<&JobRef>,
    ) -> Result<Cursor, Failure> {
        let feed = &self.context.feed;
        let mut place = feed.snapshot_start().await?;
        loop {
            let cursor = place.cursor;
            let (page, next) = feed.snapshot_page(&self.actor, only, place).await?;
            if let Some(name) = name.filter(|_| page.jobs.is_empty()) {
                return Err(self.no_job(name).into()); // it is forgotten, and nothing more will come of it
            }
            writer.write(&page.into()).await?;
            match next {
                Some(next) => place = next,
                None => return Ok(cursor),
            }
        }
    }

    pub(super) async fn events(
        &self,
        writer: &mut Writer,
        reader: &mut Reader,
        open: EventsOpen,
    ) -> Result<(), Failure> {
        writer.set_priority(Priority::State);
        let unwanted = writer.unwanted();
        let EventsOpen { after, since, kind, job, node, follow } = open;
        let job = match &job {
            Some(name) => Some(self.resolve(name).await?),
            None => None,
        };
        let feed = &self.context.feed;
        let end = feed.upto().await?;
        let mut after = after.unwrap_or(0);
        if after > end {
            let message = format!("the journal ends at {end}, before {after}");
            return Err(refuse::refusal(RefusalCode::Conflict, message, "read the events again from the start").into());
        }
        let filter = EventFilter { since, kind, job, node };
        let send = async {
            while after < end {
                let (items, upto) = feed.events(&self.actor, filter.clone(), after).await?;
                after = upto;
                if !items.is_empty() {
                    writer.write(&EventsPage { items: List::cut(items) }.into()).await?;
                }
            }
            writer.write(&CaughtUp { upto: after }.into()).await?;
            if !follow {
                return Ok(());
            }
            loop {
                let (items, upto) = feed.events_wait(&self.actor, filter.clone(), after).await?;
                after = upto;
                writer.write(&EventsPage { items: List::cut(items) }.into()).await?;
            }
        };
        tokio::select! {
            ended = send => ended,
            failure = self.hung_up(reader, unwanted) => Err(failure),
        }
    }
}
