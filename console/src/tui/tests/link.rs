//! What the lines around a view say of the link.

use super::super::update::deadline;
use super::world::{Link, ago, give, job_id, press, screen, seen, wait};
use crate::client::live::{FromLive, LinkState, LogItem};

#[test]
fn a_link_over_which_nothing_comes_is_marked_with_its_age_until_something_comes() {
    for size in [(120, 36), (80, 24), (60, 16)] {
        let mut app = seen(size, Link::Live);
        press(&mut app, &["3"]);
        // The output of the selected job is asked for once the selection rests.
        wait(&mut app, 1_000);
        let before = app.ui.table(super::super::table::TableId::Jobs).selected.clone();
        let since = ago(16);
        give(&mut app, FromLive::Link(LinkState::Silent { since }));
        let shown = screen(&app);
        assert!(shown[0].contains("● silent 17s") && shown[0].contains("17s old"), "{}", shown[0]);
        // It is no loss: there is a connection, and nothing that was asked over it is asked again.
        assert!(!shown.iter().any(|line| line.contains("LINK LOST")), "{}", shown.join("\n"));
        if size.0 >= 80 {
            assert!(shown.iter().any(|line| line.contains("STALE")), "{}", shown.join("\n"));
        }
        // Its age is what is drawn anew, once a second.
        assert!(deadline(&app).is_some_and(|at| at <= app.now.ms + 1_000));
        assert!(wait(&mut app, 1_000).is_empty());
        assert!(screen(&app)[0].contains("● silent 18s"), "{}", screen(&app)[0]);
        // Whatever comes is proof.
        give(&mut app, FromLive::Rtt(std::time::Duration::from_millis(9)));
        assert_eq!(app.mirror.link, LinkState::Live);
        let shown = screen(&app);
        assert!(
            shown[0].contains("● live") && !shown.iter().any(|line| line.contains("STALE")),
            "{}",
            shown.join("\n")
        );
        assert_eq!(app.ui.table(super::super::table::TableId::Jobs).selected, before);
    }
}

#[test]
fn remarks_on_an_interruption_name_times_as_the_screen_does() {
    let mut app = seen((120, 36), Link::Live);
    for utc in [true, false] {
        app.ui.utc = utc;
        give(&mut app, FromLive::Log(job_id(1), LogItem::Resumed(ago(9))));
        let log = &app.mirror.logs[&job_id(1)];
        let last = log.line(log.end_number() - 1).expect("a line");
        let wanted = format!("link lost {}", crate::text::time_of_day(ago(9), utc));
        assert!(last.text.starts_with(&wanted), "{}", last.text);
        assert_eq!(app.mirror.utc, utc);
    }
}

#[test]
fn a_link_that_is_lost_after_its_silence_says_so_and_what_was_said_before_is_no_proof() {
    let mut app = seen((120, 36), Link::Live);
    give(&mut app, FromLive::Link(LinkState::Silent { since: ago(17) }));
    let lost = LinkState::Lost { since: ago(0), why: "it timed out".into(), retry_at: None, tries: 0 };
    give(&mut app, FromLive::Link(lost.clone()));
    // Messages that the link has handed over before it was lost may still be on their way.
    give(&mut app, FromLive::Rtt(std::time::Duration::from_millis(9)));
    assert_eq!(app.mirror.link, lost);
    assert!(screen(&app).iter().any(|line| line.contains("LINK LOST")));
}
