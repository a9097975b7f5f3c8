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
    Some(match job {
        None if app.ui.submitted.is_empty() => {
            "new here? a runs a sample job for a fraction of a cent, n describes one of your own, ? shows the keys"
                .to_owned()
        }
        None => "submitted: it shows up here as soon as the orchestrator says so".to_owned(),
        Some(job) if !job.state.is_ended() => {
            let (cost, asset) = (text::money(job.cost, app.ctx().asset()), job.hold);
            format!(
                "{} is {}: its output comes as it is printed; {cost} so far, at most {asset}",
                job.id.short(),
                job.state.word()
            )
        }
        Some(job) => ended(app, job),
    })
}

fn ended(app: &App, job: &JobView) -> String {
    let asset = app.ctx().asset();
    format!(
        "{} {}: it cost {}, {} came back. 5 shows the money, n describes your own job, q ends it all",
        job.id.short(),
        job.state.word(),
        text::money(job.cost, asset),
        text::money(job.refund, asset)
    )
}
