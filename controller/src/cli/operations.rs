//! `scale`, `backup`: show what will happen, ask, hand it to the controller, and wait for what comes of it.

use std::time::Duration;

use agent::snapshot::How;

use super::ask::confirm;
use super::door::{Door, look_until};
use super::progress::ProgressLine;
use super::show::kind;
use super::table::clean;
use super::{Context, Failure, Output, owner, say};
use crate::http::ClusterAnswer;
use crate::view::{Ask, ClusterView, Operation, Reply};

/// Time between two looks at an operation.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after it was accepted an operation may not be shown yet.
const SHOWN_WITHIN: Duration = Duration::from_secs(15);
/// How long an operation is looked for while the lead changes.
const LOST_FOR: Duration = Duration::from_secs(90);

pub(super) async fn scale(context: &Context, instances: u32, yes: bool) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let answer: ClusterAnswer = door.get("cluster").await?;
    eprintln!("{}", scale_plan(&answer.cluster, instances));
    if answer.cluster.desired_instances != instances {
        confirm(&format!("Scale {} to {instances} instances?", context.place.cluster), yes)?;
    }
    let reply = accepted(door.ask(&Ask::Scale { owner: owner(), instances }).await?)?;
    context.print(&reply, || clean(&reply.message))
}

/// What a change of the number of instances means.
fn scale_plan(cluster: &ClusterView, wanted: u32) -> String {
    let (now, there) = (cluster.desired_instances, cluster.instances.len());
    let state = format!("{} has {there} instances, {now} are wanted.", cluster.cluster);
    if wanted >= now {
        let added = wanted - now;
        return format!("{state} {wanted} would be wanted: Aurora starts {added} more, which copy their data from the master.");
    }
    let master = cluster.master.as_ref().map(|master| master.instance);
    let mut ids: Vec<u32> = cluster.instances.iter().map(|instance| instance.instance).filter(|id| Some(*id) != master).collect();
    ids.sort_unstable();
    let removed = ids.iter().rev().take((now - wanted) as usize).map(u32::to_string).collect::<Vec<_>>().join(", ");
    let master = master.map_or("there is no master now".into(), |id| format!("the master, instance {id}, stays"));
    format!("{state} {wanted} would be wanted: instances {removed} end for good ({master}).")
}

pub(super) async fn backup(context: &Context, how: Option<How>, no_wait: bool) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let reply = accepted(door.ask(&Ask::Backup { owner: owner(), how }).await?)?;
    finish(context, &reply, no_wait).await
}

/// A refusal is a failure, with the controller's reason.
pub(super) fn accepted(reply: Reply) -> Result<Reply, Failure> {
    if reply.accepted { Ok(reply) } else { Err(Failure::Failed(format!("refused: {}", clean(&reply.message)))) }
}

/// Follows the operation to its end.
pub(super) async fn finish(context: &Context, reply: &Reply, no_wait: bool) -> Result<(), Failure> {
    eprintln!("{}", clean(&reply.message));
    if no_wait || reply.operation_id.is_empty() {
        return context.print(reply, || format!("operation {}", reply.operation_id));
    }
    let ended = follow(context, &reply.operation_id).await?;
    let outcome = clean(ended.outcome.as_deref().unwrap_or_default());
    if context.output == Output::Json {
        say(&serde_json::to_string_pretty(&ended)?);
    }
    match outcome.strip_prefix("done") {
        Some(what) if context.output == Output::Table => say(&format!("{} done{what}", kind(&ended.kind))),
        Some(_) => {}
        None => return Err(Failure::Failed(format!("{} {outcome}", kind(&ended.kind)))),
    }
    Ok(())
}

/// Looks at the operation until it has ended, printing its steps. The controller may change meanwhile.
async fn follow(context: &Context, id: &str) -> Result<Operation, Failure> {
    let begun = tokio::time::Instant::now();
    let (mut step, mut line) = (None, ProgressLine::new());
    loop {
        let answer: ClusterAnswer = look_until(context, "cluster", LOST_FOR).await?;
        match answer.operation.filter(|operation| operation.id == id) {
            Some(operation) if operation.outcome.is_some() => {
                line.end();
                return Ok(operation);
            }
            Some(operation) => {
                if step.as_ref() != Some(&operation.step) {
                    line.end();
                    eprintln!("  {}", clean(&operation.step));
                }
                step = Some(operation.step);
                line.show(&answer.cluster);
            }
            // It is published with the next cycle.
            None if step.is_none() && begun.elapsed() < SHOWN_WITHIN => {}
            None => {
                return Err(Failure::Failed(format!(
                    "operation {id} is not shown (any more): another one may have taken its place; aurora-redis status and snapshots tell what is there"
                )));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    #[test]
    fn the_plan_of_a_change_of_size_names_who_goes() {
        let cluster = example::published().cluster;
        assert!(scale_plan(&cluster, 6).contains("Aurora starts 1 more"));
        let plan = scale_plan(&cluster, 2);
        assert!(plan.contains("instances 4, 3, 2 end for good (the master, instance 1, stays)"), "{plan}");
    }

    #[test]
    fn a_refusal_is_a_failure_with_its_reason() {
        let refused = Reply::refused("no proof");
        assert!(matches!(accepted(refused), Err(Failure::Failed(message)) if message == "refused: no proof"));
    }
}
