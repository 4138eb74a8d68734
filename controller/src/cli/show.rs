//! `status`, `watch`, `history`: what the controller published, for people and programs.

use std::io::IsTerminal;
use std::time::Duration;

use agent::api::Role;

use super::door::Door;
use super::table::{bytes, clean, date, table, time};
use super::{Context, Failure, Output, say};
use crate::http::ClusterAnswer;
use crate::view::{HistoryEntry, PlanView, SnapshotRow};
use agent::causes::chain;

pub(super) async fn status(context: &Context) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let (cluster, plan): (ClusterAnswer, PlanView) = tokio::try_join!(door.get("cluster"), door.get("plan"))?;
    context.print(&cluster, || render(&cluster, &plan))
}

/// Looks again and again. On a terminal each look replaces the last one; elsewhere a line is printed for each change, ages aside.
pub(super) async fn watch(context: &Context, every: Duration) -> Result<(), Failure> {
    let screen = context.output == Output::Table && std::io::stdout().is_terminal();
    let mut before = None;
    loop {
        let looked = async {
            let door = Door::find(context).await?;
            tokio::try_join!(door.get::<ClusterAnswer>("cluster"), door.get::<PlanView>("plan"))
        };
        let looked = looked.await.map_err(|error| chain(&error));
        let now = looked.as_ref().map(|(cluster, _)| essence(cluster)).map_err(Clone::clone);
        if screen || before.as_ref() != Some(&now) {
            say(&match (looked, context.output) {
                (Ok((cluster, plan)), Output::Table) if screen => format!("\x1b[H\x1b[2J{}", render(&cluster, &plan)),
                (Ok((cluster, _)), Output::Table) => format!("{} {}", date(cluster.now_ms), clean(&cluster.cluster.summary)),
                (Ok((cluster, _)), Output::Json) => serde_json::to_string(&cluster)?,
                (Err(problem), Output::Table) => format!("no contact: {problem}"),
                (Err(problem), Output::Json) => serde_json::json!({"error": problem}).to_string(),
            });
        }
        before = Some(now);
        tokio::time::sleep(every.max(Duration::from_millis(100))).await;
    }
}

/// What a change is: all that is told but numbers that always move.
fn essence(answer: &ClusterAnswer) -> String {
    let ClusterAnswer { cluster, operation, .. } = answer;
    let instances: Vec<_> =
        cluster.instances.iter().map(|i| (i.instance, i.role, &i.state, &i.task_id, i.proven, &i.problem)).collect();
    let reasons: Vec<_> = cluster.conditions.iter().map(|condition| &condition.reason).collect();
    let operation = operation.as_ref().map(|operation| (&operation.id, &operation.outcome));
    let snapshot = cluster.snapshot.as_ref().map(|snapshot| &snapshot.id);
    format!("{:?}", (cluster.epoch, cluster.phase, &cluster.master, instances, reasons, operation, snapshot))
}

pub(super) async fn history(context: &Context) -> Result<(), Failure> {
    let history: Vec<HistoryEntry> = Door::find(context).await?.get("history").await?;
    context.print(&history, || render_history(&history))
}

/// The whole status.
pub(super) fn render(answer: &ClusterAnswer, plan: &PlanView) -> String {
    let ClusterAnswer { cluster, operation, now_ms, .. } = answer;
    let phase = cluster.phase.map_or("not bootstrapped".into(), |phase| format!("{phase:?}").to_lowercase());
    let mut text = format!("{}   epoch {}, {phase}\n{}\n\n", cluster.cluster, cluster.epoch, clean(&cluster.summary));
    text += &render_instances(answer);
    let latest =
        |s: &SnapshotRow| format!("{}, {} old, {}", s.id, time(now_ms.saturating_sub(s.created_ms)), bytes(Some(s.bytes)));
    text += &format!("\nSnapshot:   {}\n", cluster.snapshot.as_ref().map_or("none".into(), latest));
    text += &format!("Proven:     {}\n", proven(cluster, *now_ms));
    text += &match &cluster.if_master_died {
        Some(next) => {
            let pause = next.server_dies_ms.map_or(String::new(), |ms| format!(", after about {ms} ms"));
            let lost = bytes(Some(next.loss_bytes));
            format!(
                "Next:       instance {} if the master died now, {lost} lost{pause}; {} if its host were lost\n",
                next.instance,
                time(next.host_lost_ms)
            )
        }
        None => "Next:       nobody could take over now\n".into(),
    };
    if let Some(operation) = operation {
        let state = operation.outcome.as_deref().unwrap_or(&operation.step);
        text += &format!("Operation:  {} by {}: {}\n", kind(&operation.kind), clean(&operation.owner), clean(state));
    }
    for condition in &cluster.conditions {
        text += &format!("To know:    {}: {}\n", clean(&condition.reason), clean(&condition.message));
    }
    for wait in plan.waits.iter().filter(|wait| !cluster.conditions.contains(wait)) {
        text += &format!("Waits for:  {}: {}\n", clean(&wait.reason), clean(&wait.message));
    }
    for violation in &plan.violations {
        text += &format!("Not run:    the plan would have broken an invariant: {}\n", clean(violation));
    }
    text
}

/// What is known to be usable: the last verified snapshot, and the last rehearsed restore with its duration.
fn proven(cluster: &crate::view::ClusterView, now_ms: u64) -> String {
    let old = |s: &SnapshotRow| format!("{} old", time(now_ms.saturating_sub(s.created_ms)));
    let verified = cluster.verified.as_ref().map_or("none verified".into(), |s| format!("verified one {}", old(s)));
    let took = |s: &SnapshotRow| s.rehearsal.as_ref().map_or(String::new(), |r| format!(", in {}", time(r.took_ms)));
    let rehearsed = cluster.rehearsed.as_ref();
    let rehearsed = rehearsed.map_or("no restore rehearsed".into(), |s| format!("rehearsed one {}{}", old(s), took(s)));
    format!("{verified}; {rehearsed}")
}

pub(super) fn kind(kind: &crate::view::OperationKind) -> &'static str {
    use crate::view::OperationKind::*;
    match kind {
        Bootstrap => "bootstrap",
        Failover { .. } => "failover",
        Switchover { .. } => "switchover",
        Backup { .. } => "backup",
        Restore { .. } | Replace { .. } => "restore",
        Migrate(_) => "migrate",
    }
}

fn render_instances(answer: &ClusterAnswer) -> String {
    let master = answer.cluster.master.as_ref().map(|master| master.instance);
    let rows = answer.cluster.instances.iter().map(|i| {
        let role = match i.role {
            _ if master == Some(i.instance) => "master",
            Role::Master => "(master)",
            Role::Replica => "replica",
            Role::None => "-",
        };
        let unproven = i.role == Role::Replica && i.state == "serving" && !i.proven;
        let remarks = [i.activity.clone(), i.problem.clone(), unproven.then(|| "not proven in sync".into())];
        vec![
            i.instance.to_string(),
            role.into(),
            i.state.clone(),
            i.address.as_ref().map_or("-".into(), ToString::to_string),
            i.offset.map_or("-".into(), |offset| offset.to_string()),
            if i.role == Role::Replica { bytes(i.lag_bytes) } else { "-".into() },
            i.age_ms.map_or("never".into(), time),
            remarks.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]
    });
    table(&["INSTANCE", "ROLE", "STATE", "REDIS", ">OFFSET", ">BEHIND", ">HEARD", "REMARKS"], &rows.collect::<Vec<_>>())
}

fn render_history(history: &[HistoryEntry]) -> String {
    let rows: Vec<Vec<String>> = history
        .iter()
        .map(|entry| {
            vec![
                entry.epoch.to_string(),
                date(entry.at_ms),
                entry.kind.clone(),
                entry.from.as_ref().map_or("-".into(), |from| from.instance.to_string()),
                entry.to.instance.to_string(),
                entry.position.as_ref().map_or("-".into(), |position| position.offset.to_string()),
                entry.pause_ms.map_or("-".into(), time),
                lost(entry),
                entry.evidence.clone(),
            ]
        })
        .collect();
    table(&[">EPOCH", "WHEN", "KIND", ">FROM", ">TO", ">OFFSET", ">PAUSE", ">LOST", "EVIDENCE"], &rows)
}

/// Measured if it could be, else estimated.
fn lost(entry: &HistoryEntry) -> String {
    match entry.lost_bytes {
        Some(measured) => bytes(Some(measured)),
        None => entry.loss_bytes.map_or("-".into(), |estimate| format!("~{}", bytes(Some(estimate)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    fn answer() -> ClusterAnswer {
        let published = example::published();
        ClusterAnswer {
            cluster: published.cluster,
            operation: published.operation,
            last_success_ms: 1,
            now_ms: 1_795_496_400_000,
        }
    }

    #[test]
    fn the_status_says_it_all() {
        let text = render(&answer(), &example::published().plan);
        for line in [
            "www/prod/cache   epoch 7, stable",
            "INSTANCE  ROLE     STATE    REDIS              OFFSET     BEHIND  HEARD  REMARKS",
            "1         master   serving  10.20.0.11:31002  8812512          -  0.1 s",
            "3         replica  loading  10.20.0.13:31006        -          -  0.1 s  loading 61 %",
            "Next:       instance 2 if the master died now, 0 B lost, after about 21 ms; 2.2 s if its host were lost",
            "Operation:  backup by ann@ops1: instance 2 uploads 41.0 MiB of 96.2 MiB",
            "Waits for:  agent-silent: instance 4 is silent",
        ] {
            assert!(text.lines().any(|l| l.starts_with(line)), "{line}\nin\n{text}");
        }
        assert!(text.contains("Snapshot:   0000000007-20261124T044500Z-00000000000008700000, 15 min old, 96.2 MiB"), "{text}");
    }

    #[test]
    fn a_change_is_more_than_an_age() {
        let mut later = answer();
        later.cluster.instances[0].age_ms = Some(999);
        later.now_ms += 1000;
        assert_eq!(essence(&answer()), essence(&later));
        later.cluster.instances[0].state = "fenced".into();
        assert_ne!(essence(&answer()), essence(&later));
    }

    #[test]
    fn an_empty_cluster_is_shown_too() {
        let empty = ClusterAnswer { cluster: Default::default(), operation: None, last_success_ms: 0, now_ms: 0 };
        let text = render(&empty, &PlanView::default());
        assert!(text.contains("not bootstrapped") && text.contains("nobody could take over"), "{text}");
    }

    #[test]
    fn history_is_a_table() {
        let published = example::published();
        let history = render_history(&published.history);
        assert!(history.contains("    7  2026-11-24 04:53:01Z  failover   "), "{history}");
    }
}
