//! `snapshots prune`: takes those snapshots out of the store that nothing wants kept.
//!
//! The order is the controller's, who knows the lineage; what goes is decided by [`Retention`], and removed in the store itself.

use agent::record::Phase;
use agent::snapshot::{Candidate, Fate, Retention, SnapshotId};
use agent::store::{Removed, Store};
use serde::Serialize;

use super::super::ask::confirm;
use super::super::door::Door;
use super::super::table::{table, time};
use super::super::{Context, Failure};
use super::{now_ms, open};
use crate::http::ClusterAnswer;
use crate::view::{Operation, SnapshotRow};

/// Nothing younger goes, whatever the numbers say: it may be what somebody is about to use.
const YOUNG_MS: u64 = 3_600_000;

/// Arguments of `snapshots prune`.
pub(in crate::cli) struct Prune {
    /// See [`Retention`].
    pub newest: usize,
    pub days: usize,
    pub weeks: usize,
    pub dry_run: bool,
    pub yes: bool,
}

/// What became of one snapshot.
#[derive(Serialize)]
struct Line {
    snapshot: SnapshotId,
    created_ms: u64,
    goes: bool,
    because: &'static str,
    removed: bool,
}

pub(in crate::cli) async fn prune(context: &Context, wanted: Prune) -> Result<(), Failure> {
    let store = open(context)?;
    let door = Door::find(context).await?;
    let (rows, answer): (Vec<SnapshotRow>, ClusterAnswer) = tokio::try_join!(door.get("snapshots"), door.get("cluster"))?;
    let rule = Retention { newest: wanted.newest, days: wanted.days, weeks: wanted.weeks, young_ms: YOUNG_MS };
    let mut lines = plan(&rows, rule, answer.now_ms);
    let going = lines.iter().filter(|line| line.goes).count();
    if wanted.dry_run || going == 0 {
        return context.print(&lines, || render(&lines, answer.now_ms));
    }
    if let Some(why) = in_the_way(answer.cluster.phase, answer.operation.as_ref()) {
        return Err(Failure::Failed(why));
    }
    eprintln!("{}", render(&lines, answer.now_ms));
    confirm(&format!("Remove {going} of {} snapshots of {} for good?", lines.len(), context.place.cluster), wanted.yes)?;
    remove(&store, &mut lines).await?;
    let swept = store.sweep(now_ms()).await?;
    let removed = lines.iter().filter(|line| line.removed).count();
    context.print(&lines, || format!("{removed} snapshots and {swept} abandoned uploads removed"))
}

/// Removes what goes. One that was pinned since the listing stays.
async fn remove(store: &Store, lines: &mut [Line]) -> Result<(), Failure> {
    for line in lines.iter_mut().filter(|line| line.goes) {
        match store.remove(&line.snapshot).await? {
            Removed::Gone => line.removed = true,
            Removed::Pinned => (line.goes, line.because) = (false, "pinned"),
        }
    }
    Ok(())
}

/// What becomes of each. Pure.
fn plan(rows: &[SnapshotRow], rule: Retention, now_ms: u64) -> Vec<Line> {
    let candidate = |row: &SnapshotRow| Candidate {
        id: row.id.clone(),
        created_ms: row.created_ms,
        good: row.good,
        suspicious: row.suspicious,
        pinned: row.pin.is_some(),
        imported: row.imported.is_some(),
    };
    let candidates: Vec<Candidate> = rows.iter().map(candidate).collect();
    let line = |(fate, row): (Fate, &SnapshotRow)| Line {
        snapshot: fate.id,
        created_ms: row.created_ms,
        goes: fate.goes,
        because: fate.because,
        removed: false,
    };
    rule.judge(&candidates, now_ms).into_iter().zip(rows).map(line).collect()
}

/// Who may be reading snapshots: a cluster without a master, which starts from one, or an operation. Nothing is removed under their hands. Pure.
fn in_the_way(phase: Option<Phase>, operation: Option<&Operation>) -> Option<String> {
    if phase != Some(Phase::Stable) {
        return Some(
            "the cluster has no master in office and may be about to start from a snapshot; prune when it is stable".into(),
        );
    }
    let running = operation.filter(|operation| operation.outcome.is_none())?;
    let kind = super::super::show::kind(&running.kind);
    Some(format!("operation {} ({kind}) is in flight: {}; prune when it has ended", running.id, running.step))
}

fn render(lines: &[Line], now_ms: u64) -> String {
    let row = |line: &Line| {
        let age = time(now_ms.saturating_sub(line.created_ms));
        vec![line.snapshot.to_string(), age, if line.goes { "goes" } else { "stays" }.into(), line.because.into()]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    match rows.is_empty() {
        true => "the store holds no snapshot".into(),
        false => table(&["SNAPSHOT", ">AGE", "FATE", "BECAUSE"], &rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    const NOW_MS: u64 = 1_795_496_400_000;

    #[test]
    fn the_plan_tells_the_fate_of_each() {
        let mut rows = vec![example::published().snapshots[0].clone(); 3];
        for (n, row) in rows.iter_mut().enumerate() {
            row.created_ms = NOW_MS - 7_200_000 * (n as u64 + 1);
            row.id = SnapshotId::new(7, row.created_ms, 1);
        }
        let rule = Retention { newest: 1, days: 0, weeks: 0, young_ms: YOUNG_MS };
        let text = render(&plan(&rows, rule, NOW_MS), NOW_MS);
        for part in ["2 h  stays  the best good one", "4 h  goes   nothing wants it kept"] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
        rows[1].pin = Some(Default::default());
        assert!(!plan(&rows, rule, NOW_MS)[1].goes);
        assert_eq!(render(&plan(&[], rule, NOW_MS), NOW_MS), "the store holds no snapshot");
    }

    #[test]
    fn an_operation_in_flight_and_a_cluster_without_a_master_are_in_the_way() {
        let mut operation = example::published().operation.unwrap();
        operation.outcome = None;
        let stable = Some(Phase::Stable);
        assert!(in_the_way(stable, Some(&operation)).unwrap().contains("is in flight"));
        operation.outcome = Some("done".into());
        assert_eq!(in_the_way(stable, Some(&operation)), None);
        assert_eq!(in_the_way(stable, None), None);
        for phase in [None, Some(Phase::Bootstrapping), Some(Phase::Deposing), Some(Phase::Promoting)] {
            assert!(in_the_way(phase, None).unwrap().contains("no master in office"), "{phase:?}");
        }
    }

    #[tokio::test]
    async fn what_goes_is_removed_and_what_was_pinned_meanwhile_stays() {
        use agent::snapshot::{Manifest, Origin, Pin};
        use agent::store::{Options, Progress, Report};
        let dir = std::env::temp_dir().join(format!("prune-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let dump = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/testdata/small.rdb"));
        let checked = agent::rdb::check_file(dump).unwrap().unwrap();
        let store = Store::open(&format!("file://{}", dir.display()), "a/b/c", Options::default()).unwrap();
        let mut lines = Vec::new();
        for hour in 1..=3 {
            let created_ms = NOW_MS + hour * YOUNG_MS;
            let origin = Origin { cluster_id: "c".into(), epoch: 4, created_ms, ..Origin::default() };
            let report = Report::new(Progress::default());
            let snapshot = store.put(dump, Manifest::new(origin, &checked), &report).await.unwrap();
            lines.push(Line { snapshot, created_ms, goes: hour < 3, because: "", removed: false });
        }
        store.pin(&lines[1].snapshot, &Pin::default()).await.unwrap();
        remove(&store, &mut lines).await.expect("the store is there");
        let left: Vec<String> = store.list().await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, [lines[1].snapshot.to_string(), lines[2].snapshot.to_string()]);
        let fates: Vec<(bool, bool)> = lines.iter().map(|line| (line.goes, line.removed)).collect();
        assert_eq!(fates, [(true, true), (false, false), (false, false)]);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
