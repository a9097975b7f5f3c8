//! `token`: letting others join. The token's secret is drawn here, goes to whoever is given the token's text, and nowhere else:
//! the orchestrator hears only what proofs of it are checked with.

use std::time::Duration;

use modchain_certs::{Credentials, JoinToken, RootPin};
use modchain_types::{Role, TokenId};
use modchain_wire::console::{TokenCreate, TokenRevoke, TokensQuery};
use modchain_wire::view::TokenView;

use super::docs::{self, ListDoc};
use super::jobs::ids;
use super::join;
use super::table::{Column, Columns, or_none};
use crate::args::{Format, TableArgs, TokenCommand, TokenCreateArgs};
use crate::client::link::chain;
use crate::exit::{self, Failure, Outcome};
use crate::shell::{Shell, Target};
use crate::text;

/// Tries before giving up: repeating the request with the same token is harmless.
const TRIES: u32 = 5;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// `modchain token ...`.
pub(crate) async fn token(shell: &Shell, command: TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create(args) => create(shell, args).await,
        TokenCommand::List { all, table } => list(shell, all, &table).await,
        TokenCommand::Revoke { tokens } => revoke(shell, tokens).await,
    }
}

async fn create(shell: &Shell, args: TokenCreateArgs) -> Outcome {
    let target = shell.target()?;
    let (token, request) = drawn(&target, args)?;
    let view = ask(shell, &request).await?;
    let token = token.text();
    match shell.format() {
        Format::Json | Format::Jsonl => shell.print_document(&docs::token(&view, Some(&token)))?,
        Format::Name | Format::Table => shell.print(&format!("{}\n", *token))?,
    }
    explained(&view, &target.join, &request).iter().for_each(|line| shell.say(line));
    Ok(exit::OK)
}

/// A new token, and what the orchestrator is told of it.
pub(crate) fn drawn(target: &Target, args: TokenCreateArgs) -> Result<(JoinToken, TokenCreate), Failure> {
    let role = Role::from(args.role);
    let token = draw(target, role)?;
    let request = TokenCreate {
        token: token.id(),
        verifier: token.verifier(),
        role,
        name: args.name,
        account: args.account,
        rejoin: args.rejoin,
        ttl: args.ttl,
    };
    Ok((token, request))
}

/// A token for the orchestrator of this context, which is known by its root.
fn draw(target: &Target, role: Role) -> Result<JoinToken, Failure> {
    let failed = |why: String| {
        Failure::not_logged_in(format!("cannot use the identity in {}: {why}", target.identity.display()))
    };
    let credentials = Credentials::load(&target.identity).map_err(|error| failed(chain(&error)))?;
    let pin = RootPin::of_root(credentials.root()).map_err(|error| failed(chain(&error)))?;
    Ok(JoinToken::generate(role, pin).expect("one can join in every role that the flag takes"))
}

/// Asks until there is an answer: whether a lost request was heard shows only in the next one.
async fn ask(shell: &Shell, request: &TokenCreate) -> Result<TokenView, Failure> {
    let mut tries = 0;
    loop {
        let answer = async { shell.connect().await?.token_create(request.clone()).await };
        tries += 1;
        match answer.await {
            Err(failure) if failure.lost && tries < TRIES => tokio::time::sleep(PAUSE).await,
            Err(failure) if failure.lost && failure.exit == exit::UNREACHABLE => {
                return Err(failure.hint("nobody was given a token; one that was half made can be used by nobody"));
            }
            answer => return answer,
        }
    }
}

/// What a new token is for, and what to type where it is used.
pub(crate) fn explained(view: &TokenView, join: &str, request: &TokenCreate) -> [String; 2] {
    let ttl = request.ttl;
    let what = match (&view.name, request.rejoin) {
        (Some(name), true) => format!("the {} {name} to join again", view.role),
        (Some(name), false) => format!("one {}, to be called {name}", view.role),
        (None, _) => format!("one {}", view.role),
    };
    let account = view.account.as_ref().map(|account| format!(", account {account}")).unwrap_or_default();
    let program = match view.role {
        Role::Node => "modchain-agent join",
        Role::Client | Role::Operator | Role::Orchestrator => "modchain join",
    };
    [
        format!("token {} is for {what}{account}; it works once, for {ttl}", view.id),
        format!("there: {program} --orchestrator {join} --token-file -"),
    ]
}

async fn list(shell: &Shell, all: bool, table: &TableArgs) -> Outcome {
    let look = shell.look();
    let columns = Columns::new(&COLUMNS, table, look.wide)?;
    let client = shell.connect().await?;
    let page = client.tokens(TokensQuery { ended: all }).await?;
    let (mut tokens, total) = (page.items.into_vec(), page.total);
    columns.sort(&mut tokens, &look);
    match shell.format() {
        Format::Json => {
            let items = tokens.iter().map(|token| docs::token(token, None)).collect();
            shell.print_document(&ListDoc { schema: "modchain.tokens/v1", items, total: Some(total) })?;
        }
        Format::Jsonl => tokens.iter().try_for_each(|token| shell.print_document(&docs::token(token, None)))?,
        Format::Name => shell.print(&tokens.iter().map(|token| format!("{}\n", token.id)).collect::<String>())?,
        Format::Table => {
            let alarms = if look.csv { String::new() } else { alarms(&tokens) };
            shell.print(&(columns.text(&tokens, &look) + &alarms))?;
            if total > tokens.len() as u64 {
                shell.say(&format!("the newest {} of {total} tokens", tokens.len()));
            }
        }
    }
    Ok(exit::OK)
}

/// One of them.
type TokenColumn = Column<TokenView>;

/// The columns of tokens.
pub(crate) static COLUMNS: [TokenColumn; 10] = [
    TokenColumn::text("token", "TOKEN", |token, _| token.id.to_string()),
    TokenColumn::text("role", "ROLE", |token, _| token.role.word().into()),
    TokenColumn::text("name", "NAME", |token, _| or_none(token.name.as_ref())),
    TokenColumn::text("account", "ACCOUNT", |token, _| or_none(token.account.as_ref())),
    TokenColumn::text("state", "STATE", |token, _| token.state.word().into()),
    TokenColumn::text("expires", "EXPIRES", |token, look| text::date_time(token.expires_at, look.utc)),
    TokenColumn::text("by", "BY", |token, _| or_none(token.issued_by.as_ref())),
    TokenColumn::text("used-by", "USED BY", |token, _| or_none(token.identity.as_ref())),
    TokenColumn::text("from", "FROM", |token, _| or_none(token.from.as_ref())),
    TokenColumn::text("issued", "ISSUED", |token, look| text::date_time(token.issued_at, look.utc)).extra(),
];

/// What is suspicious, below the table.
fn alarms(tokens: &[TokenView]) -> String {
    let mut out = String::new();
    for token in tokens {
        for alarm in &token.alarms {
            out.push_str(&format!("! {}: {}\n", token.id, text::one_line(alarm)));
        }
    }
    out
}

async fn revoke(shell: &Shell, words: Vec<String>) -> Outcome {
    let tokens = ids(words).await?.iter().map(|word| id(word)).collect::<Result<Vec<_>, _>>()?;
    let client = shell.connect().await?;
    let mut views = Vec::new();
    for token in tokens {
        let view = client.token_revoke(TokenRevoke { token }).await.map_err(|failure| done_before(failure, &views))?;
        // Said as it is done: the next one may fail.
        match shell.format() {
            Format::Json => {}
            Format::Jsonl => shell.print_document(&docs::token(&view, None))?,
            Format::Name => shell.print(&format!("{}\n", view.id))?,
            Format::Table if shell.quiet() => {}
            Format::Table => shell.print(&format!("{}  {}\n", view.id, view.state.word()))?,
        }
        views.push(view);
    }
    match (shell.format(), views.as_slice()) {
        (Format::Json, [view]) => shell.print_document(&docs::token(view, None))?,
        (Format::Json, views) => {
            let items: Vec<_> = views.iter().map(|view| docs::token(view, None)).collect();
            let total = Some(items.len() as u64);
            shell.print_document(&ListDoc { schema: "modchain.tokens/v1", items, total })?;
        }
        _ => {}
    }
    Ok(exit::OK)
}

/// A failure in the middle of several must not hide what was done before it.
fn done_before(failure: Failure, views: &[TokenView]) -> Failure {
    if views.is_empty() {
        return failure;
    }
    let done: Vec<String> = views.iter().map(|view| view.id.to_string()).collect();
    failure.hint(format!("revoked before that: {}", done.join(", ")))
}

/// A token's id, from itself or from the whole text, which says which one it is and has no more secrets after that.
fn id(word: &str) -> Result<TokenId, Failure> {
    // A whole text has dashes, and an id has none.
    if word.contains('-') {
        return Ok(join::parse(word.as_bytes())?.id());
    }
    word.parse().map_err(|error: modchain_types::id::BadId| {
        Failure::usage(error.to_string()).hint("modchain token list shows the ids")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_by_its_id_or_by_its_whole_text() {
        let token = JoinToken::generate(Role::Node, RootPin([7; 32])).expect("a role that joins");
        assert_eq!(id(&token.id().to_string()).expect("an id"), token.id());
        assert_eq!(id(&token.text()).expect("a text"), token.id());
        assert_eq!(id("MZXW6YTB").expect("upper case"), "mzxw6ytb".parse().expect("an id"));
        for word in ["", "mzxw6yt", "mzxw6yt1", "MCJ1-n-x", "mzxw6ytbmzxw6ytb"] {
            let failure = id(word).expect_err(word);
            assert_eq!(failure.exit, exit::USAGE, "{word}: {failure}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_without_any_of_it() {
        let token = JoinToken::generate(Role::Client, RootPin([7; 32])).expect("a role that joins");
        let text = token.text();
        assert!(join::parse(format!("  {}\n", text.to_uppercase()).as_bytes()).is_ok());
        let mut mistyped = text.as_bytes().to_vec();
        mistyped[75] = if mistyped[75] == b'a' { b'b' } else { b'a' };
        for (bytes, said) in [
            (mistyped.as_slice(), "typing error"),
            (&text.as_bytes()[..60], "characters instead of"),
            (b"hello", "not a join token"),
            (b" \n", "the token is empty"),
        ] {
            let Err(failure) = join::parse(bytes) else { panic!("{said}: taken") };
            assert!(failure.message.contains(said), "{failure}");
            assert!(failure.hint.is_some(), "{failure}");
            assert_eq!((failure.code, failure.exit), ("token_invalid", exit::USAGE));
            assert!(!failure.to_string().contains(&text[70..90]), "the secret is not repeated");
        }
    }
}
