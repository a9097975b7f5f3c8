//! The first steps under `modchain up`: from a console that has just opened to a job that is done and paid, by reading the screen alone.

use modchain_wire::view::JobView;

use super::super::app::App;
use crate::text;

/// The next step, where first steps are shown.
pub(crate) fn line(app: &App) -> Option<String> {
    if !app.ui.hint {
        return None;
    }
    let job = app.ui.submitted.last().and_then(|id| app.mirror.jobs.get(id));
    Some(match (app.ui.submitted.len(), job) {
        (0, _) if app.caps.sample.is_some() => {
            "new here? a runs a sample job, n describes your own, ? shows the keys".to_owned()
        }
        // Who has done it twice knows the way.
        (0 | 2.., _) => return None,
        (_, None) => "submitted: it shows up here as soon as the orchestrator says so".to_owned(),
        (_, Some(job)) if !job.state.is_ended() => {
            let cost = text::money(job.cost, app.ctx().asset());
            format!("{} is {}: {cost} so far, {} at most", job.id.short(), job.state.word(), job.hold)
        }
        (_, Some(job)) => ended(app, job),
    })
}

/// Whether the first job is done: what comes next is said before anything else.
pub(crate) fn is_done(app: &App) -> bool {
    let job = app.ui.submitted.last().and_then(|id| app.mirror.jobs.get(id));
    app.ui.hint && app.ui.submitted.len() == 1 && job.is_some_and(|job| job.state.is_ended())
}

/// What a table without jobs says.
pub(crate) fn invitation(app: &App) -> Vec<String> {
    let own = "n describes a job".to_owned();
    if app.ui.hint && app.ui.submitted.is_empty() && app.caps.sample.is_some() {
        return vec![
            "a runs a sample job: it prints primes, and costs a fraction of a cent of test money".to_owned(),
            own,
        ];
    }
    vec![own]
}

fn ended(app: &App, job: &JobView) -> String {
    let cost = text::money(job.cost, app.ctx().asset());
    let state = job.state.word();
    format!("{} {state}, {cost} paid. 5 shows the money, n new job, q quit", job.id.short())
}

#[cfg(test)]
mod tests {
    use modchain_types::JobState;

    use super::super::super::tests::world::{Link, job_id, seen};
    use super::*;

    #[test]
    fn each_step_says_the_next_one() {
        let mut app = seen((80, 24), Link::Live);
        assert_eq!(line(&app), None, "only under up");
        (app.ui.hint, app.caps.sample) = (true, Some(vec!["run".into()]));
        assert!(line(&app).expect("a step").contains("a runs a sample job"));
        assert_eq!(invitation(&app).len(), 2);
        app.ui.submitted.push(job_id(1));
        assert!(line(&app).expect("a step").contains("is running: 0.24 USDC so far"));
        assert!(!is_done(&app));
        app.ui.submitted[0] = job_id(3);
        assert_eq!(app.mirror.jobs[&job_id(3)].state, JobState::Completed);
        let said = line(&app).expect("a step");
        assert!(is_done(&app) && said.contains("completed, 1.37 USDC paid") && said.len() < 79, "{said}");
        app.ui.submitted.push(job_id(1));
        assert_eq!(line(&app), None);
    }
}
