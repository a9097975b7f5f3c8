//! A job's output: followed, paused, searched, whatever comes meanwhile.

use modchain_wire::Data;
use modchain_wire::agent::OutputStream;
use modchain_wire::console::{LogChunk, LogCursor};

use super::super::app::{App, Place};
use super::super::msg::{Effect, Msg};
use super::super::update::{deadline, open, update};
use super::world::{Link, NOW, give, job_id, press, screen, seen};
use crate::client::live::{FromLive, LogItem, ToLive};

/// Gives the running job more output.
fn write(app: &mut App, stream: OutputStream, bytes: &[u8]) {
    let records = app.mirror.logs[&job_id(1)].cursor().map_or(0, |cursor| cursor.records);
    let chunk = LogChunk {
        cursor: LogCursor { attempt: 1, records: records + 1 },
        stream,
        offset: 0,
        at: NOW,
        data: Data::new(bytes::Bytes::copy_from_slice(bytes)).expect("fits"),
    };
    give(app, FromLive::Log(job_id(1), LogItem::Chunk(Box::new(chunk))));
}

fn numbered(from: usize, to: usize) -> Vec<u8> {
    (from..to).flat_map(|number| format!("line {number}\n").into_bytes()).collect()
}

/// A console that looks at the output of the running job, which has so many lines more than at first.
fn looking(lines: usize) -> App {
    let mut app = seen((80, 24), Link::Live);
    open(&mut app, Place::Output(job_id(1)));
    update(&mut app, Msg::Deadline);
    write(&mut app, OutputStream::Out, b"\n");
    write(&mut app, OutputStream::Out, &numbered(0, lines));
    app
}

fn shows(app: &App, text: &str) -> bool {
    screen(app).iter().any(|line| line.contains(text))
}

#[test]
fn the_end_is_followed_until_one_scrolls_up_and_again_from_the_end_on() {
    let mut app = looking(100);
    assert!(shows(&app, "line 99") && shows(&app, "follow"), "{:#?}", screen(&app));
    press(&mut app, &["k"]);
    assert!(shows(&app, "PAUSED at line") && shows(&app, "paused"));
    let before = screen(&app);
    write(&mut app, OutputStream::Out, &numbered(100, 150));
    let after = screen(&app);
    assert_eq!(before[4..20], after[4..20], "what is read does not move");
    assert!(shows(&app, "50 new below"), "{:?}", after[22]);
    press(&mut app, &["G"]);
    assert!(shows(&app, "line 149"));
    write(&mut app, OutputStream::Out, &numbered(150, 151));
    assert!(shows(&app, "line 150"), "followed again");
    press(&mut app, &["g", "g"]);
    assert!(shows(&app, "loading checkpoint shards"));
    press(&mut app, &["f"]);
    assert!(shows(&app, "line 150"));
}

#[test]
fn forgetting_the_oldest_lines_moves_nothing_that_is_read() {
    let mut app = looking(200);
    press(&mut app, &["PgUp"]);
    let before = screen(&app);
    // Not so many that what is on the screen is forgotten too.
    for round in 0..10 {
        write(&mut app, OutputStream::Out, &numbered(200 + round * 4_980, 200 + (round + 1) * 4_980));
    }
    let log = &app.mirror.logs[&job_id(1)];
    assert!(log.forgotten() > 0, "some were forgotten");
    assert_eq!(before[4..20], screen(&app)[4..20]);
}

#[test]
fn a_search_counts_its_finds_goes_from_one_to_the_next_and_finds_what_comes() {
    let mut app = looking(300);
    press(&mut app, &["g", "g", "/", "L", "i", "n", "e", "Space", "2", "7"]);
    assert!(shows(&app, "line 27 "), "case does not matter, and the first find is shown");
    press(&mut app, &["Enter"]);
    assert!(shows(&app, "1/11"), "27 and 270 to 279: {:?}", screen(&app)[3]);
    press(&mut app, &["n"]);
    assert!(shows(&app, "line 270") && shows(&app, "2/11"));
    press(&mut app, &["N", "N"]);
    assert!(shows(&app, "11/11"), "round the beginning to the last one");
    write(&mut app, OutputStream::Out, b"line 2");
    write(&mut app, OutputStream::Out, b"7 has come in two pieces\n");
    assert!(shows(&app, "11/12"));
    press(&mut app, &["Esc"]);
    assert!(!shows(&app, "search \""));
}

#[test]
fn streams_times_and_width_are_kept_for_the_next_job() {
    let mut app = looking(3);
    write(&mut app, OutputStream::Err, b"only an error\n");
    press(&mut app, &["o", "o"]);
    assert!(shows(&app, "only an error") && !shows(&app, "line 2") && shows(&app, "stderr"));
    press(&mut app, &["t"]);
    assert!(shows(&app, " err only an error"));
    open(&mut app, Place::Output(job_id(3)));
    update(&mut app, Msg::Deadline);
    assert!(shows(&app, "stderr"), "the next output is looked at in the same way");
}

#[test]
fn long_lines_are_broken_or_scrolled_and_wide_characters_are_measured() {
    let mut app = looking(0);
    let wide = format!("{}finis\n", "漢".repeat(60));
    write(&mut app, OutputStream::Out, wide.as_bytes());
    assert!(!shows(&app, "finis"));
    for _ in 0..10 {
        press(&mut app, &["l"]);
    }
    assert!(shows(&app, "finis"));
    press(&mut app, &["w"]);
    assert!(shows(&app, "finis"), "broken");
    assert_eq!(
        screen(&app).iter().filter(|line| line.contains('漢')).count(),
        3,
        "two rows, and the sample's own line"
    );
}

#[test]
fn of_a_strangers_escapes_only_colours_come_through() {
    let mut app = looking(0);
    write(&mut app, OutputStream::Out, b"\x1b]0;title\x07\x1b[2Jclean \x1b[31mred\x1b[0m \xe2\x80\xaeturned\x07\n");
    assert!(shows(&app, "clean red"));
    assert!(screen(&app).iter().all(|line| line.chars().all(|c| !c.is_control() && c != '\u{202e}')));
}

#[test]
fn a_line_goes_to_the_jobs_input_and_an_empty_ctrl_d_ends_it() {
    let mut app = looking(0);
    let sent = |effects: Vec<Effect>| -> Vec<Vec<u8>> {
        let bytes =
            |effect| if let Effect::Send(ToLive::Input(_, bytes)) = effect { Some(bytes.to_vec()) } else { None };
        effects.into_iter().filter_map(bytes).collect()
    };
    assert_eq!(sent(press(&mut app, &["i", "h", "i", "Enter"])), [b"hi\n".to_vec()]);
    assert_eq!(sent(press(&mut app, &["a", "Enter", "Ctrl-d"])), [b"a\n".to_vec(), Vec::new()]);
    give(&mut app, FromLive::Input(job_id(1), Ok((5, true))));
    app.ui.toasts.clear();
    assert!(shows(&app, "stdin 5 B and its end"));
}

#[test]
fn nothing_yet_says_why() {
    let mut app = seen((80, 24), Link::Live);
    open(&mut app, Place::Output(job_id(2)));
    update(&mut app, Msg::Deadline);
    assert!(shows(&app, "no output yet: no node has 2 GPUs"));
    open(&mut app, Place::Output(job_id(6)));
    update(&mut app, Msg::Deadline);
    assert!(shows(&app, "prepares the job, which is not billed"));
}

#[test]
fn a_line_that_is_taller_than_the_pane_is_read_row_by_row_to_its_end() {
    let mut app = looking(0);
    // Wide characters leave a column free at the end of some rows.
    let text: String = (0..400).map(|number| format!("<{number:03}漢>")).collect();
    write(&mut app, OutputStream::Out, format!("{text}\nshort\n").as_bytes());
    press(&mut app, &["w"]);
    assert!(shows(&app, "short") && shows(&app, "<399"), "the end of it is followed: {:#?}", screen(&app));
    press(&mut app, &["g", "g"]);
    // What is at the top of the pane, step by step.
    let row = |app: &App| screen(app)[4].trim_matches(['│', ' ']).replace(' ', "");
    let mut steps = 0;
    while !row(&app).starts_with("<000") {
        press(&mut app, &["j"]);
        steps += 1;
        assert!(steps < 20, "{:#?}", screen(&app));
    }
    let mut read = String::new();
    while read.len() < text.len() && steps < 200 {
        read.push_str(&row(&app));
        press(&mut app, &["j"]);
        steps += 1;
        if shows(&app, "following") {
            // The rest is on the screen.
            let rows = screen(&app);
            let rest = rows[4..22].iter().map(|row| row.trim_matches(['│', ' ']).replace(' ', ""));
            read.push_str(&rest.take_while(|row| row != "short").collect::<String>());
        }
    }
    assert_eq!(read, text);
    // And back again, row by row and page by page.
    let (end, mut up) = (screen(&app), 0);
    press(&mut app, &["k"]);
    assert_eq!(screen(&app)[5..20], end[4..19], "one row");
    while !row(&app).starts_with("<000") {
        press(&mut app, &["k"]);
        up += 1;
        assert!(up < 200);
    }
    press(&mut app, &["PgDn", "PgUp"]);
    assert!(row(&app).starts_with("<000"), "{:#?}", screen(&app));
    // What is found deep in it comes on the screen.
    press(&mut app, &["/", "<", "3", "3", "3", "Enter"]);
    assert!(shows(&app, "<333") && shows(&app, "1/1"), "{:#?}", screen(&app));
}

#[test]
fn a_search_in_much_output_goes_on_between_keys_and_ends_where_it_would_have() {
    let mut app = looking(0);
    for round in 0..60 {
        let lines = (0..200).map(|line| format!("straw {} {}\n", round * 200 + line, "x".repeat(100)));
        write(&mut app, OutputStream::Out, lines.collect::<String>().as_bytes());
    }
    write(&mut app, OutputStream::Out, b"the needle\n");
    press(&mut app, &["g", "g", "/", "n", "e", "e", "d"]);
    assert!(shows(&app, "0/0…"), "it is looked for: {:?}", screen(&app)[3]);
    let says_so = |app: &App| screen(app)[22].contains("not found");
    assert!(!says_so(&app));
    let mut looks = 0;
    while deadline(&app).is_some_and(|at| at <= app.now.ms) {
        update(&mut app, Msg::Deadline);
        looks += 1;
        assert!(looks < 100, "it ends");
    }
    assert!(looks > 1 && shows(&app, "the needle") && shows(&app, "1/1"), "{looks}: {:#?}", screen(&app));
    // A longer word is known at once, and so is that there is none.
    press(&mut app, &["l", "e"]);
    assert!(shows(&app, "1/1"), "{:?}", screen(&app)[3]);
    press(&mut app, &["s"]);
    assert!(says_so(&app), "{:#?}", screen(&app));
}
