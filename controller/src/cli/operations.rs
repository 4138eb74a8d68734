//! `scale`, `backup`, `restore`: show what will happen, ask, hand it to the controller, and wait for what comes of it.

use std::time::Duration;

use agent::api::Epoch;
use agent::snapshot::{How, SnapshotId};

use super::ask::confirm;
use super::door::{Door, look_until};
use super::progress::ProgressLine;
use super::show::kind;
use super::table::{bytes, clean, date, time};
use super::{Context, Failure, Output, owner, say};
use crate::http::ClusterAnswer;
use crate::view::{Ask, ClusterView, Operation, Reply, SnapshotRow};

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

/// Arguments of `restore`.
pub(super) struct Restore {
    pub snapshot: Option<SnapshotId>,
    pub consent: bool,
    pub empty: bool,
    pub yes: bool,
    pub no_wait: bool,
}

pub(super) async fn restore(context: &Context, wanted: Restore) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let (answer, snapshots): (ClusterAnswer, Vec<SnapshotRow>) = tokio::try_join!(door.get("cluster"), door.get("snapshots"))?;
    let source = match &wanted.snapshot {
        Some(id) => Some(
            snapshots.iter().find(|s| s.id == *id).ok_or_else(|| Failure::Failed(format!("the store holds no snapshot {id}")))?,
        ),
        None => snapshots.iter().find(|s| s.good),
    };
    eprintln!("{}", restore_plan(&answer, source, wanted.consent));
    confirm(&format!("Restore {}?", context.place.cluster), wanted.yes)?;
    let consent_epoch: Option<Epoch> = wanted.consent.then_some(answer.cluster.epoch);
    let ask = Ask::Restore { owner: owner(), snapshot: wanted.snapshot, consent_epoch, empty: wanted.empty };
    let reply = accepted(door.ask(&ask).await?)?;
    finish(context, &reply, wanted.no_wait).await
}

/// Evidence, source, expected loss, and what consent would mean.
fn restore_plan(answer: &ClusterAnswer, source: Option<&SnapshotRow>, consent: bool) -> String {
    let cluster = &answer.cluster;
    let mut text = format!("{}, epoch {}: {}\n", cluster.cluster, cluster.epoch, clean(&cluster.summary));
    for condition in cluster.conditions.iter().filter(|condition| !cluster.summary.contains(&condition.message)) {
        text += &format!("  known:   {}: {}\n", clean(&condition.reason), clean(&condition.message));
    }
    match source {
        Some(snapshot) => {
            let age = time(answer.now_ms.saturating_sub(snapshot.created_ms));
            let keys = snapshot.keys.map_or(String::new(), |keys| format!(", {keys} keys"));
            text +=
                &format!("  source:  {} of {}, {}{keys}\n", snapshot.id, date(snapshot.created_ms), bytes(Some(snapshot.bytes)));
            text += &format!("  loss:    writes of the last {age}, unless a newer copy is found in a sandbox\n");
            if let Some(problem) = snapshot.problem.as_ref().filter(|_| snapshot.suspicious) {
                text += &format!("  problem: {}; it is restored because it was named\n", clean(problem));
            } else if let Some(problem) = &snapshot.problem {
                text += &format!("  problem: this snapshot is not usable: {}\n", clean(problem));
            }
        }
        None => text += "  source:  the store holds no usable snapshot; the best copy left in a sandbox, if there is one\n",
    }
    text + if consent {
        "  consent: given. If the last master still runs somewhere, its clients' writes are lost. Make sure that it does not."
    } else {
        "  consent: not given. It is refused if nothing proves that the last master writes no more; then repeat with --consent."
    }
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
    fn the_plan_of_a_restore_shows_evidence_loss_and_consent() {
        let published = example::published();
        let answer = ClusterAnswer { cluster: published.cluster, operation: None, last_success_ms: 0, now_ms: 1_795_496_400_000 };
        let plan = restore_plan(&answer, published.snapshots.first(), false);
        for part in ["known:   agent-silent", "source:  0000000007-", "writes of the last 15 min", "repeat with --consent"] {
            assert!(plan.contains(part), "{part} in {plan}");
        }
        assert!(restore_plan(&answer, None, true).contains("holds no usable snapshot"));
        assert!(restore_plan(&answer, published.snapshots.get(1), true).contains("not usable: piece 3"));
    }

    #[test]
    fn a_refusal_is_a_failure_with_its_reason() {
        let refused = Reply { accepted: false, operation_id: String::new(), message: "no proof".into() };
        assert!(matches!(accepted(refused), Err(Failure::Failed(message)) if message == "refused: no proof"));
    }
}
