//! How results are printed: for people, or as one JSON document.

use modchain_orchestrator::accept::Acceptance;
use modchain_orchestrator::backup::{Backup, Restored};
use modchain_orchestrator::init::{InitOptions, Initialised};
use modchain_orchestrator::verify::Verified;
use serde_json::json;

use crate::Output;

fn date(wall: modchain_types::WallTime) -> String {
    jiff::Timestamp::from_millisecond(wall.0).map_or_else(|_| wall.0.to_string(), |time| time.to_string())
}

pub(crate) fn init(options: &InitOptions, made: &Initialised, output: Output) {
    if output == Output::Json {
        let identities: Vec<_> = made
            .identities
            .iter()
            .map(|issued| {
                json!({
                    "name": issued.identity.name,
                    "role": issued.identity.role.word(),
                    "id": issued.identity.id.to_string(),
                    "account": issued.identity.account,
                    "dir": issued.dir,
                    "created": issued.created,
                    "expires_at": date(issued.expires),
                })
            })
            .collect();
        println!(
            "{}",
            json!({
                "schema": "modchain.init/v1",
                "data": options.data,
                "journal": made.journal.to_string(),
                "asset": made.asset.code(),
                "created": made.created,
                "name": made.name,
                "renamed_from": made.renamed_from,
                "operator_token": made.operator_token.as_ref().map(|token| token.0.as_str()),
                "identities": identities,
            })
        );
        return;
    }
    let what = match (made.created, &made.renamed_from) {
        (true, _) => format!("made pool {}", made.name),
        (false, None) => format!("found pool {}", made.name),
        (false, Some(before)) => format!("found pool {before}, which is called {} from now on", made.name),
    };
    println!("{what}: journal {} of {} in {}", made.journal, made.asset, options.data.display());
    for issued in &made.identities {
        let what = if issued.created { "new" } else { "new certificate for" };
        let (name, role) = (&issued.identity.name, issued.identity.role);
        println!("{what} {role} {name}, account {}: {}", issued.identity.account, issued.dir.display());
    }
    if let Some(token) = &made.operator_token {
        println!("operator token, shown only here, good for one hour from the first start of serve:");
        println!("{}", token.0.as_str());
    }
    println!("next: modchain-orchestrator serve --data {}", options.data.display());
    if made.operator_token.is_some() {
        println!("      (one that runs already takes the token in when it is restarted)");
        println!("then: modchain join --orchestrator HOST:7444 --token-file -");
    }
}

pub(crate) fn backup(made: &Backup, output: Output) {
    warn_of_lacking(&made.lacking);
    let head = modchain_types::Digest(made.head);
    if output == Output::Json {
        println!(
            "{}",
            json!({
                "schema": "modchain.backup/v1",
                "place": made.place,
                "journal": made.journal.to_string(),
                "asset": made.asset.code(),
                "events": made.last_number,
                "head": head.to_string(),
                "files": made.files,
                "bytes": made.bytes,
                "lacking": made.lacking,
            })
        );
        return;
    }
    println!("copied journal {} up to event {}: {}", made.journal, made.last_number, made.place.display());
    println!("  head   {head}");
    println!("  files  {}, {} bytes", made.files, made.bytes);
    println!("it holds the pool's keys: keep it as safe as the data itself");
}

pub(crate) fn restored(made: &Restored, output: Output) {
    warn_of_lacking(&made.lacking);
    let Verified { journal, last_number, open_jobs, ended_jobs, .. } = &made.verified;
    let (head, place) = (modchain_types::Digest(made.verified.head), made.place.display());
    if output == Output::Json {
        println!(
            "{}",
            json!({
                "schema": "modchain.restore/v1",
                "data": made.place,
                "journal": journal.to_string(),
                "events": last_number,
                "head": head.to_string(),
                "files": made.files,
                "bytes": made.bytes,
                "open_jobs": open_jobs,
                "ended_jobs": ended_jobs,
                "lacking": made.lacking,
            })
        );
        return;
    }
    println!("restored journal {journal} up to event {last_number}: {place}");
    println!("  head   {head}");
    println!("  jobs   {open_jobs} open, {ended_jobs} ended");
    println!("  files  {}, {} bytes", made.files, made.bytes);
    println!("next: modchain-orchestrator serve --data {place}");
    println!(
        "      (what happened after the copy is not in it: if a node has seen more, nothing is scheduled and modchain status says so)"
    );
}

pub(crate) fn acceptance(acceptance: &Acceptance, output: Output) {
    let Acceptance { was, now, last_number, known_until, open_jobs, waiting } = acceptance;
    let known_until = date(*known_until);
    if output == Output::Json {
        println!(
            "{}",
            json!({
                "schema": "modchain.accept_restore/v1",
                "accepted": now.is_some(),
                "was": was.to_string(),
                "journal": now.map(|now| now.to_string()),
                "events": last_number,
                "known_until": known_until,
                "open_jobs": open_jobs,
                "waiting_jobs": waiting,
            })
        );
        return;
    }
    match now {
        Some(now) => println!("the journal goes on behind event {last_number} as {now}; it was {was}"),
        None => println!("journal {was} would go on behind event {last_number}; nothing is changed without --yes"),
    }
    println!("  known until   about {known_until}");
    println!("  lost          whatever happened after that: jobs, credits, payments, who joined and who was revoked");
    println!(
        "  goes on       {open_jobs} open jobs, {waiting} of them not placed; what ran to its end after the copy runs again"
    );
    println!("  ended         what nodes run or hold that this journal does not know, unbilled");
    if now.is_some() {
        println!(
            "next: modchain-orchestrator serve, then look at modchain cert list: who was revoked after the copy comes in again"
        );
    }
}

/// What was gone or damaged where the copy was made is in no copy of it.
fn warn_of_lacking(lacking: &[String]) {
    for what in lacking {
        eprintln!("warning: {what}, where it was copied from");
    }
}

pub(crate) fn verified(verified: &Verified, output: Output) {
    let head = modchain_types::Digest(verified.head);
    let money = u64::try_from(verified.money).unwrap_or(u64::MAX);
    if output == Output::Json {
        println!(
            "{}",
            json!({
                "schema": "modchain.verify/v1",
                "ok": true,
                "journal": verified.journal.to_string(),
                "segments": verified.segments,
                "batches": verified.batches,
                "events": verified.last_number,
                "head": head.to_string(),
                "accounts": verified.accounts,
                "money": { "micro": money, "currency": verified.asset.code() },
                "open_jobs": verified.open_jobs,
                "ended_jobs": verified.ended_jobs,
            })
        );
        return;
    }
    println!("journal {} is whole", verified.journal);
    println!("  events    {} in {} batches and {} segments", verified.last_number, verified.batches, verified.segments);
    println!("  head      {head}");
    println!("  accounts  {}", verified.accounts);
    println!("  money     {} {}, every debit has its credit", modchain_types::Micro(money), verified.asset);
    println!("  jobs      {} open, {} ended", verified.open_jobs, verified.ended_jobs);
}
