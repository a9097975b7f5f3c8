//! Requests with one short answer.

use std::time::Instant;

use modchain_core::membership::Member;
use modchain_core::{Command, Control, Refused, Reply};
use modchain_types::{AccountId, Identity, List, Name, Role, Span};
use modchain_wire::Sentence;
use modchain_wire::console::{
    AccountQuery, Cancel, Credit, JobQuery, JobsQuery, LedgerQuery, NodeQuery, NodeSet, NodesQuery, Refusal,
    RefusalCode,
};

use super::{ConsoleSession, Failure, Writer, refuse};
use crate::feed::LedgerFilter;

/// Longest time between asking a job to end and killing it, as the engine has it: longer would be a way of not stopping.
const GRACE_MAX: Span = Span::from_secs(600);

/// Members of whom [`other_certificate`] is said: a screen full.
const SUSPECTS_SHOWN: usize = 32;

/// That a certificate came which is not accepted, of somebody who is not revoked.
fn other_certificate(member: &Member) -> String {
    let Identity { role, name, .. } = &member.identity;
    format!(
        "{role} {name}: a certificate of it came that another one has replaced, or that this journal does not know: after a \
         new join that is its older copy; else its key was copied (modchain cert revoke {name}), or this data is an old copy"
    )
}

impl ConsoleSession {
    pub(super) async fn cancel(&self, writer: &mut Writer, cancel: Cancel) -> Result<(), Failure> {
        if cancel.grace > GRACE_MAX {
            return Err(refuse::invalid(format!("--grace may be {GRACE_MAX} at most"), "").into());
        }
        let job = self.resolve(&cancel.job).await?;
        let command = Command::Cancel { by: self.actor.clone(), job, grace: cancel.grace, why: cancel.why };
        let (reply, number) = self.context.services.engine.command_numbered(command).await?;
        match reply {
            Reply::Cancelling { .. } => {}
            Reply::Refused(Refused::UnknownJob) => return Err(self.no_job(&cancel.job).into()),
            Reply::Refused(refused) => return Err(refuse::by_engine(refused, Some(&cancel.job)).into()),
            _ => {
                return Err(refuse::internal("the engine answered something else").into());
            }
        }
        self.context.feed.reached(number).await?;
        let view = self.context.feed.job(&self.actor, job).await?.ok_or_else(|| self.no_job(&cancel.job))?;
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn jobs(&self, writer: &mut Writer, query: JobsQuery) -> Result<(), Failure> {
        let page = self.context.feed.jobs(&self.actor, query).await?;
        Ok(writer.write(&page.into()).await?)
    }

    pub(super) async fn job(&self, writer: &mut Writer, query: JobQuery) -> Result<(), Failure> {
        let job = self.resolve(&query.job).await?;
        let view = self.context.feed.job(&self.actor, job).await?.ok_or_else(|| self.no_job(&query.job))?;
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn nodes(&self, writer: &mut Writer, query: NodesQuery) -> Result<(), Failure> {
        let page = self.context.feed.nodes(query).await?;
        Ok(writer.write(&page.into()).await?)
    }

    pub(super) async fn node(&self, writer: &mut Writer, query: NodeQuery) -> Result<(), Failure> {
        let view = self.context.feed.node_history(query.node.clone()).await?.ok_or_else(|| no_node(&query.node))?;
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn node_set(&self, writer: &mut Writer, set: NodeSet) -> Result<(), Failure> {
        let NodeSet { node: name, wish, why } = set;
        let node = self.context.feed.node_named(name.clone()).await?.ok_or_else(|| no_node(&name))?;
        let command = Command::NodeSet { by: self.actor.clone(), node, wish, why };
        let (reply, number) = self.context.services.engine.command_numbered(command).await?;
        match reply {
            Reply::Done => {}
            // Who may see a node and not touch it learns why; nobody else is asked for its name.
            Reply::Refused(Refused::UnknownNode) => return Err(refuse::foreign_node(&name).into()),
            Reply::Refused(refused) => return Err(refuse::by_engine(refused, None).into()),
            _ => {
                return Err(refuse::internal("the engine answered something else").into());
            }
        }
        self.context.feed.reached(number).await?;
        let history = self.context.feed.node_history(name.clone()).await?.ok_or_else(|| no_node(&name))?;
        Ok(writer.write(&history.node.into()).await?)
    }

    pub(super) async fn account(&self, writer: &mut Writer, query: AccountQuery) -> Result<(), Failure> {
        let account = self.account_of(query.account)?;
        let view = self.context.feed.account(account.clone()).await?.ok_or_else(|| no_account(&account))?;
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn ledger(&self, writer: &mut Writer, query: LedgerQuery) -> Result<(), Failure> {
        let account = self.account_of(query.account)?;
        let job = match &query.job {
            Some(name) => Some(self.resolve(name).await?),
            None => None,
        };
        let LedgerQuery { since, kind, before, limit, .. } = query;
        let filter = LedgerFilter { since, kind, job, before, limit };
        let page = self.context.feed.ledger(account.clone(), filter).await?.ok_or_else(|| no_account(&account))?;
        Ok(writer.write(&page.into()).await?)
    }

    /// One's own account, or the one that an operator names.
    fn account_of(&self, named: Option<AccountId>) -> Result<AccountId, Failure> {
        match named {
            None => Ok(self.actor.account.clone()),
            Some(account) if self.actor.may_touch(&account) => Ok(account),
            Some(_) => Err(refuse::foreign_account().into()),
        }
    }

    pub(super) async fn status(&self, writer: &mut Writer) -> Result<(), Failure> {
        let services = &self.context.services;
        let mut view = self.context.feed.status(&self.actor).await?;
        let operator = self.actor.role == Role::Operator;
        let came = if operator { services.gate.others_came(Instant::now(), SUSPECTS_SHOWN) } else { Vec::new() };
        let ask = move |control: &Control, now| {
            let mut alarms = if operator { control.alarms(now) } else { Vec::new() };
            alarms.extend(came.iter().filter_map(|id| control.member(*id)).map(other_certificate));
            (control.problems(), alarms)
        };
        let (mut problems, alarms) = services.engine.query(ask).await?;
        problems.extend(services.engine.frozen().map(|why| format!("money is frozen: {why}")));
        if services.engine.storage_low() {
            let space = services.engine.space();
            problems.push(if operator { space.alarm() } else { space.complaint() });
        }
        problems.extend(self.context.feed.complaint().filter(|_| operator));
        // Last: strangers cause them, and must not push out of the list what is wrong with the whole.
        problems.extend(alarms);
        if operator {
            problems.extend(self.context.suspicions.shown(Instant::now()));
        }
        view.problems = List::cut(problems.into_iter().map(Sentence::cut).collect());
        Ok(writer.write(&view.into()).await?)
    }

    pub(super) async fn credit(&self, writer: &mut Writer, credit: Credit) -> Result<(), Failure> {
        if self.context.services.engine.storage_low() {
            return Err(self.storage_full().into());
        }
        let Credit { account, amount, key, why } = credit;
        let command = Command::Credit { by: self.actor.clone(), account: account.clone(), amount, key, why };
        let (reply, number) = self.context.services.engine.command_numbered(command).await?;
        match reply {
            Reply::Done => {}
            Reply::Refused(refused) => return Err(refuse::by_engine(refused, None).into()),
            _ => {
                return Err(refuse::internal("the engine answered something else").into());
            }
        }
        self.context.feed.reached(number).await?;
        let view = self.context.feed.account(account.clone()).await?.ok_or_else(|| no_account(&account))?;
        Ok(writer.write(&view.into()).await?)
    }
}

fn no_node(node: &Name) -> Refusal {
    refuse::refusal(RefusalCode::NotFound, format!("there is no node `{node}`"), "modchain nodes lists them")
}

fn no_account(account: &AccountId) -> Refusal {
    let message = format!("there is no account `{account}`");
    refuse::refusal(RefusalCode::NotFound, message, "accounts belong to clients: check the spelling")
}
