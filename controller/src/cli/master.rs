//! `switchover` and `failover`: the controller says what would happen, then the question, then the change.

use super::ask::confirm;
use super::door::Door;
use super::operations::{accepted, finish};
use super::table::clean;
use super::{Context, Failure};
use crate::view::Ask;

/// Shows the plan that the controller makes of `ask(true)`, and has `ask(false)` done unless only the plan was wanted.
pub(super) async fn change(
    context: &Context,
    question: &str,
    ask: impl Fn(bool) -> Ask,
    dry_run: bool,
    yes: bool,
) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let plan = accepted(door.ask(&ask(true)).await?)?;
    if dry_run {
        return context.print(&plan, || clean(&plan.message));
    }
    eprintln!("{}", clean(&plan.message));
    confirm(&format!("{question} in {}?", context.place.cluster), yes)?;
    let reply = accepted(door.ask(&ask(false)).await?)?;
    finish(context, &reply, false).await
}
