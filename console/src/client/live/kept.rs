//! What outlives a connection: how much of the journal was taken in, which outputs are followed and how far, and which requests
//! wait for their answer. Pure: it decides where things go on, and does nothing.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use modchain_types::{JobId, JournalId, WallTime};
use modchain_wire::FromConsole;
use modchain_wire::console::{LogCursor, Submit};

use super::{AskId, Mark};

/// Events before the first snapshot that are fetched.
const EVENTS_BEFORE: u64 = 1_000;
/// Events that are fetched at most after a longer absence: as many as are kept.
const EVENTS_MISSED_MAX: u64 = crate::client::mirror::EVENTS_MAX as u64;
/// Requests that may wait for their answers.
pub(super) const PENDING_MAX: usize = 256;
/// How often one request is sent before the failure is its answer: connections that break with it may break because of it.
const SENDS_MAX: u32 = 3;

/// All that is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// How much was taken in.
    mark: Option<Mark>,
    /// Whether something was taken in since that was last asked.
    moved: bool,
    /// Events after this number are still to be fetched; deltas bring those after the mark.
    owed: Option<u64>,
    /// Outputs that are followed.
    follows: BTreeMap<JobId, Following>,
    /// Requests without an answer, in order.
    pending: VecDeque<Pending>,
}

/// One output that is followed.
#[derive(Debug, Clone, Copy, Default)]
struct Following {
    /// The place after the last piece that was handed over.
    cursor: Option<LogCursor>,
    /// Whether anything of it was handed over.
    begun: bool,
    /// Since when it is interrupted.
    broken: Option<WallTime>,
}

/// One request.
#[derive(Debug)]
struct Pending {
    id: AskId,
    what: What,
    /// Whether it is on its way.
    sent: bool,
    /// How often it was sent.
    sends: u32,
}

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// One frame.
    Ask(Box<FromConsole>),
    /// A blob, and the submit that needs it.
    Submit(Box<Submit>, Option<Bytes>),
}

impl What {
    /// The request that goes with the answer.
    pub(super) fn request(self) -> Box<FromConsole> {
        match self {
            Self::Ask(request) => request,
            Self::Submit(submit, _) => Box::new(FromConsole::Submit(*submit)),
        }
    }
}

impl Kept {
    /// Where the state stream of a connection to this journal goes on; `None` if it begins with a snapshot.
    pub(super) fn resume(&self, journal: JournalId) -> Option<(JournalId, u64)> {
        self.mark.filter(|mark| mark.journal == journal).map(|mark| (mark.journal, mark.upto))
    }

    /// A snapshot is whole. What happened since the last mark of the same journal is still to be fetched.
    pub(super) fn snapshot_taken(&mut self, journal: JournalId, upto: u64) {
        let known = self.mark.filter(|mark| mark.journal == journal && mark.upto <= upto);
        self.owed = match known {
            Some(mark) => {
                let from = self.owed.unwrap_or(mark.upto).max(upto.saturating_sub(EVENTS_MISSED_MAX));
                (from < upto).then_some(from)
            }
            None => (upto > 0).then_some(upto.saturating_sub(EVENTS_BEFORE)),
        };
        self.mark = Some(Mark { journal, upto });
        self.moved = true;
    }

    /// Whether a delta that begins after this event is the next one; otherwise a snapshot is needed.
    pub(super) fn fits(&self, prev: u64) -> bool {
        self.mark.is_some_and(|mark| mark.upto == prev)
    }

    /// A delta that fits was handed over.
    pub(super) fn delta_taken(&mut self, upto: u64) {
        if let Some(mark) = &mut self.mark {
            mark.upto = upto;
        }
        self.moved = true;
    }

    /// Whether a snapshot or a delta was taken in since the last time this was asked: the connection is of use.
    pub(super) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// After which event events are still to be fetched.
    pub(super) fn owed(&self) -> Option<u64> {
        self.owed
    }

    /// Events up to this one have been fetched; more are to come.
    pub(super) fn events_taken(&mut self, upto: u64) {
        self.owed = self.owed.map(|owed| owed.max(upto));
    }

    /// All events have been fetched, or cannot be.
    pub(super) fn events_done(&mut self) {
        self.owed = None;
    }

    /// Follows an output. Gives `false` if it is followed already.
    pub(super) fn follow(&mut self, job: JobId, cursor: Option<LogCursor>) -> bool {
        if self.follows.contains_key(&job) {
            return false;
        }
        self.follows.insert(job, Following { cursor, begun: cursor.is_some(), broken: None });
        true
    }

    /// Follows it no more.
    pub(super) fn unfollow(&mut self, job: JobId) {
        self.follows.remove(&job);
    }

    /// Every output that is followed.
    pub(super) fn followed(&self) -> Vec<JobId> {
        self.follows.keys().copied().collect()
    }

    /// Where it goes on; `None` if it is not followed.
    pub(super) fn cursor(&self, job: JobId) -> Option<Option<LogCursor>> {
        self.follows.get(&job).map(|following| following.cursor)
    }

    /// A piece of it, or the word that there is none, was handed over.
    pub(super) fn log_taken(&mut self, job: JobId, cursor: Option<LogCursor>) {
        if let Some(following) = self.follows.get_mut(&job) {
            following.begun = true;
            following.cursor = cursor.or(following.cursor);
        }
    }

    /// Its stream has broken.
    pub(super) fn log_broke(&mut self, job: JobId, now: WallTime) {
        if let Some(following) = self.follows.get_mut(&job).filter(|following| following.begun) {
            following.broken.get_or_insert(now);
        }
    }

    /// Since when it is interrupted.
    pub(super) fn interrupted(&self, job: JobId) -> Option<WallTime> {
        self.follows.get(&job).and_then(|following| following.broken)
    }

    /// It goes on, and that was said.
    pub(super) fn log_resumed(&mut self, job: JobId) {
        if let Some(following) = self.follows.get_mut(&job) {
            following.broken = None;
        }
    }

    /// Takes a request in; gives it back if too many wait.
    pub(super) fn ask(&mut self, id: AskId, what: What) -> Result<(), What> {
        if self.pending.len() >= PENDING_MAX {
            return Err(what);
        }
        self.pending.push_back(Pending { id, what, sent: false, sends: 0 });
        Ok(())
    }

    /// The next request to send.
    pub(super) fn send_next(&mut self) -> Option<(AskId, What)> {
        let next = self.pending.iter_mut().find(|pending| !pending.sent)?;
        next.sent = true;
        next.sends += 1;
        Some((next.id, next.what.clone()))
    }

    /// It was answered.
    pub(super) fn answered(&mut self, id: AskId) {
        self.pending.retain(|pending| pending.id != id);
    }

    /// The answer to it was lost: it waits for the next try in its old place. Gives `false` if it was tried often enough.
    pub(super) fn answer_lost(&mut self, id: AskId) -> bool {
        match self.pending.iter_mut().find(|pending| pending.id == id) {
            Some(pending) if pending.sends < SENDS_MAX => {
                pending.sent = false;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The connection is gone, and everything that was under way with it. Gives what was tried often enough.
    pub(super) fn connection_lost(&mut self, now: WallTime) -> Vec<(AskId, What)> {
        for job in self.followed() {
            self.log_broke(job, now);
        }
        let (given_up, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|one| one.sent && one.sends >= SENDS_MAX);
        self.pending = waiting;
        self.pending.iter_mut().for_each(|one| one.sent = false);
        given_up.into_iter().map(|one| (one.id, one.what)).collect()
    }

    /// Gives everything up: the requests that had no answer.
    pub(super) fn clear(&mut self) -> Vec<(AskId, What)> {
        std::mem::take(self).pending.into_iter().map(|one| (one.id, one.what)).collect()
    }
}

#[cfg(test)]
mod tests {
    use modchain_types::Text;
    use modchain_wire::console::{JobQuery, StatusQuery};

    use super::*;

    const OURS: JournalId = JournalId([1; 16]);
    const OTHER: JournalId = JournalId([2; 16]);
    const JOB: JobId = JobId([7; 16]);

    fn query(word: &str) -> What {
        What::Ask(Box::new(JobQuery { job: Text::cut(word) }.into()))
    }

    fn word(what: &What) -> &str {
        match what {
            What::Ask(request) => match &**request {
                FromConsole::Job(query) => query.job.as_str(),
                other => panic!("{other:?}"),
            },
            What::Submit(..) => panic!("no submit"),
        }
    }

    #[test]
    fn a_stream_goes_on_after_the_last_delta_and_only_in_the_same_journal() {
        let mut kept = Kept::default();
        assert_eq!(kept.resume(OURS), None);
        assert!(!kept.fits(0), "nothing fits before the first snapshot");
        kept.snapshot_taken(OURS, 10);
        assert!(kept.fits(10));
        kept.delta_taken(12);
        assert!(kept.fits(12) && !kept.fits(13) && !kept.fits(10));
        assert_eq!(kept.resume(OURS), Some((OURS, 12)));
        assert_eq!(kept.resume(OTHER), None);
    }

    #[test]
    fn a_snapshot_owes_the_events_since_the_mark_or_the_newest_thousand() {
        let mut kept = Kept::default();
        kept.snapshot_taken(OURS, 0);
        assert_eq!(kept.owed(), None, "there are none");
        kept.snapshot_taken(OURS, 5_000);
        assert_eq!(kept.owed(), Some(0), "all since the mark");
        kept.events_taken(3_000);
        kept.snapshot_taken(OURS, 6_000);
        assert_eq!(kept.owed(), Some(3_000), "what an earlier connection did not fetch is not forgotten");
        kept.events_done();
        kept.snapshot_taken(OURS, 6_000);
        assert_eq!(kept.owed(), None);
        kept.snapshot_taken(OURS, 100_000);
        assert_eq!(kept.owed(), Some(90_000), "no more than are kept");
        kept.snapshot_taken(OTHER, 4_000);
        assert_eq!(kept.owed(), Some(3_000), "another history begins as the first did");
        kept.snapshot_taken(OTHER, 500);
        assert_eq!(kept.owed(), Some(0), "a journal that was set back is another history too");
    }

    #[test]
    fn an_output_goes_on_after_its_last_piece_and_says_once_that_it_was_interrupted() {
        let mut kept = Kept::default();
        assert!(kept.follow(JOB, None) && !kept.follow(JOB, None));
        kept.connection_lost(WallTime(1));
        assert_eq!(kept.interrupted(JOB), None, "nothing was seen of it yet");
        let place = LogCursor { attempt: 1, records: 4 };
        kept.log_taken(JOB, Some(place));
        kept.log_taken(JOB, None);
        kept.connection_lost(WallTime(2));
        kept.connection_lost(WallTime(3));
        assert_eq!(kept.cursor(JOB), Some(Some(place)));
        assert_eq!(kept.interrupted(JOB), Some(WallTime(2)));
        kept.log_resumed(JOB);
        assert_eq!(kept.interrupted(JOB), None);
        kept.unfollow(JOB);
        assert_eq!((kept.cursor(JOB), kept.followed()), (None, Vec::new()));
    }

    #[test]
    fn requests_outlive_the_connection_in_their_order() {
        let mut kept = Kept::default();
        for (id, word) in [(1, "first"), (2, "second"), (3, "third")] {
            kept.ask(AskId(id), query(word)).expect("there is room");
        }
        let send = |kept: &mut Kept| kept.send_next().map(|(id, what)| (id.0, word(&what).to_owned()));
        assert_eq!(send(&mut kept), Some((1, "first".into())));
        assert_eq!(send(&mut kept), Some((2, "second".into())));
        kept.answered(AskId(1));
        assert!(kept.connection_lost(WallTime(0)).is_empty());
        let again: Vec<_> = std::iter::from_fn(|| send(&mut kept)).collect();
        assert_eq!(again, [(2, "second".into()), (3, "third".into())]);
    }

    #[test]
    fn a_request_that_breaks_every_connection_is_given_up() {
        let mut kept = Kept::default();
        kept.ask(AskId(1), query("poison")).expect("there is room");
        for _ in 1..SENDS_MAX {
            assert!(kept.send_next().is_some());
            assert!(kept.connection_lost(WallTime(0)).is_empty());
        }
        assert!(kept.send_next().is_some());
        let given_up = kept.connection_lost(WallTime(0));
        assert_eq!(given_up.iter().map(|(id, what)| (id.0, word(what))).collect::<Vec<_>>(), [(1, "poison")]);
        assert!(kept.send_next().is_none());
        // One that waited while there was no connection is not to blame.
        kept.ask(AskId(2), query("waits")).expect("there is room");
        for _ in 0..10 {
            assert!(kept.connection_lost(WallTime(0)).is_empty());
        }
        assert!(kept.send_next().is_some());
        assert!(kept.answer_lost(AskId(2)) && !kept.answer_lost(AskId(9)));
    }

    #[test]
    fn requests_that_wait_are_bounded() {
        let mut kept = Kept::default();
        let status = || What::Ask(Box::new(StatusQuery { detail: false }.into()));
        for id in 0..PENDING_MAX as u64 {
            kept.ask(AskId(id), status()).expect("there is room");
        }
        assert!(kept.ask(AskId(9_999), status()).is_err());
        assert_eq!(kept.clear().len(), PENDING_MAX);
        assert!(kept.send_next().is_none());
    }
}
