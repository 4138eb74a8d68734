//! `snapshots`: list and show what the controller published; pin, import, verify and prune in the store itself.

use std::time::UNIX_EPOCH;

use agent::snapshot::{Acceptance, Imported, Pin, SnapshotId, Verification};
use agent::store::{Options, Store};

use super::door::Door;
use super::table::{bytes, clean, date, table, time};
use super::{Context, Failure, owner, say};
use crate::http::ClusterAnswer;
use crate::view::SnapshotRow;

mod import;
mod prune;
mod verify;

pub(super) use import::{find, import, take_in};
pub(super) use prune::{Prune, prune};
pub(super) use verify::{Verify, rehearse, verify};

pub(super) async fn list(context: &Context) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let (snapshots, cluster): (Vec<SnapshotRow>, ClusterAnswer) = tokio::try_join!(door.get("snapshots"), door.get("cluster"))?;
    context.print(&snapshots, || render_list(&snapshots, cluster.now_ms))
}

pub(super) async fn show(context: &Context, id: &SnapshotId) -> Result<(), Failure> {
    let snapshots: Vec<SnapshotRow> = Door::find(context).await?.get("snapshots").await?;
    let Some(found) = snapshots.iter().find(|snapshot| snapshot.id == *id) else {
        return Err(Failure::Failed(format!("the store holds no snapshot {id}; aurora-redis snapshots lists what it holds")));
    };
    context.print(found, || render_one(found))
}

pub(super) async fn pin(context: &Context, id: &SnapshotId, reason: Option<String>) -> Result<(), Failure> {
    let pin = Pin { owner: owner(), reason: reason.unwrap_or_default(), at_ms: now_ms() };
    let new = open(context)?.pin(id, &pin).await?;
    say(&if new { format!("{id} is pinned") } else { format!("{id} was pinned already") });
    Ok(())
}

pub(super) async fn unpin(context: &Context, id: &SnapshotId) -> Result<(), Failure> {
    let was = open(context)?.unpin(id).await?;
    say(&if was { format!("{id} is pinned no more") } else { format!("{id} was not pinned") });
    Ok(())
}

pub(super) async fn accept(context: &Context, id: &SnapshotId, reason: Option<String>) -> Result<(), Failure> {
    let acceptance = Acceptance { owner: owner(), reason: reason.unwrap_or_default(), at_ms: now_ms() };
    let new = open(context)?.accept(id, &acceptance).await?;
    say(&if new { format!("{id} is accepted") } else { format!("{id} was accepted already") });
    Ok(())
}

/// The cluster's store, spoken to without the controller.
fn open(context: &Context) -> Result<Store, Failure> {
    let Some(uri) = &context.place.snapshots_uri else {
        return Err(Failure::Usage("snapshots.uri is not set: name the store by --snapshots-uri".into()));
    };
    Ok(Store::open(uri, &context.place.cluster, Options::reaching(&context.place.hdfs))?)
}

fn now_ms() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn render_list(snapshots: &[SnapshotRow], now_ms: u64) -> String {
    let row = |s: &SnapshotRow| {
        vec![
            s.id.to_string(),
            state(s).into(),
            time(now_ms.saturating_sub(s.created_ms)),
            bytes(Some(s.bytes)),
            s.keys.map_or("-".into(), |keys| keys.to_string()),
            s.epoch.to_string(),
            s.server.clone(),
            s.verification.as_ref().map_or("-".into(), |v| verified(v, now_ms)),
            if s.pin.is_some() { "yes".into() } else { "-".into() },
            s.problem.clone().or_else(|| Some(format!("from {}", s.imported.as_ref()?.from))).unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = snapshots.iter().map(row).collect();
    let headers = ["SNAPSHOT", "STATE", ">AGE", ">SIZE", ">KEYS", ">EPOCH", "SERVER", "VERIFIED", "PINNED", "PROBLEM"];
    table(&headers, &rows)
}

/// In a word.
fn state(row: &SnapshotRow) -> &'static str {
    match (row.good, row.suspicious) {
        (true, _) => "good",
        (_, true) => "suspicious",
        _ if row.is_import() => "imported",
        _ => "unusable",
    }
}

/// In a few words: how long ago, and whether a server loaded it.
fn verified(verification: &Verification, now_ms: u64) -> String {
    let how = match (&verification.problem, &verification.loaded_by) {
        (Some(_), _) => "bad",
        (None, Some(_)) => "loaded",
        (None, None) => "read",
    };
    format!("{how} {} ago", time(now_ms.saturating_sub(verification.at_ms)))
}

fn render_one(s: &SnapshotRow) -> String {
    let position = s.position.as_ref().map_or("none".into(), |at| format!("{} at {}", at.replid, at.offset));
    let lines = [
        ("snapshot", s.id.to_string()),
        ("state", stands(s)),
        ("created", date(s.created_ms)),
        ("size", format!("{} ({} bytes)", bytes(Some(s.bytes)), s.bytes)),
        ("keys", s.keys.map_or("unknown".into(), |keys| keys.to_string())),
        ("epoch", s.epoch.to_string()),
        ("position", position),
        (
            "written by",
            s.imported.as_ref().map_or(format!("instance {}, server {}", s.instance, s.server), |i| foreign(i, &s.server)),
        ),
        ("verified", s.verification.as_ref().map_or("never".into(), verification)),
        ("rehearsed", s.rehearsal.as_ref().map_or("never".into(), verification)),
        ("pinned", s.pin.as_ref().map_or("no".into(), |pin| word(pin.at_ms, &pin.owner, &pin.reason))),
    ];
    lines.map(|(name, value)| format!("{name:<12}{}\n", clean(&value))).concat()
}

/// Where an imported one comes from.
fn foreign(imported: &Imported, server: &str) -> String {
    let cluster = imported.cluster_id.as_ref().map_or(String::new(), |id| format!(", of cluster {id}"));
    format!("server {server}{cluster}; imported from {} {}", imported.from, word(imported.at_ms, &imported.by, ""))
}

fn verification(v: &Verification) -> String {
    let keys = v.keys.as_ref().map_or(0, |keys| keys.values().sum::<u64>());
    let found = match (&v.problem, &v.loaded_by) {
        (Some(problem), _) => format!("bad: {problem}"),
        (None, Some(server)) => format!("good, {keys} keys, loaded by server {server}"),
        (None, None) => format!("good, {keys} keys; no server loaded it"),
    };
    format!("{} by {}, in {}: {found}", date(v.at_ms), v.by, time(v.took_ms))
}

/// State and reason; who accepted it.
fn stands(s: &SnapshotRow) -> String {
    match (&s.problem, &s.accepted) {
        (Some(problem), _) if s.suspicious => format!("{problem}; aurora-redis snapshots accept has it used all the same"),
        (Some(problem), _) => format!("unusable: {problem}"),
        (None, _) if s.imported.is_some() => "imported: it is used only when somebody names it".into(),
        (None, Some(by)) => format!("good; accepted {}", word(by.at_ms, &by.owner, &by.reason)),
        (None, None) => "good".into(),
    }
}

/// When, by whom, why.
fn word(at_ms: u64, owner: &str, reason: &str) -> String {
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let owner = if owner.is_empty() { "somebody" } else { owner };
    format!("{} by {owner}{because}", date(at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    const NOW_MS: u64 = 1_795_496_400_000;

    fn verification(problem: Option<&str>, loaded_by: Option<&str>) -> Option<Verification> {
        Some(Verification {
            at_ms: NOW_MS - 3_600_000,
            by: "ann@ops1".into(),
            problem: problem.map(str::to_owned),
            keys: Some([(0, 104_000), (3, 211)].into()),
            loaded_by: loaded_by.map(str::to_owned),
            took_ms: 4_200,
        })
    }

    #[test]
    fn the_list_tells_state_age_and_notes() {
        let mut snapshots = example::published().snapshots;
        snapshots[0].pin = Some(Pin { owner: "ann".into(), ..Pin::default() });
        snapshots[0].verification = verification(None, Some("7.0.15"));
        let text = render_list(&snapshots, NOW_MS);
        for part in [
            "good      15 min  96.2 MiB  104211      7  7.0.15  loaded 60 min ago  yes",
            "unusable  15 min  96.2 MiB  104211      6  7.0.15  -                  -       piece 3 differs from its checksum",
        ] {
            assert!(text.contains(part), "{part}\nin\n{text}");
        }
    }

    #[test]
    fn one_is_shown_with_everything_noted() {
        let mut row = example::published().snapshots[0].clone();
        let plain = render_one(&row);
        assert!(
            plain.contains("written by  instance 2, server 7.0.15\nverified    never\nrehearsed   never\npinned      no\n"),
            "{plain}"
        );
        row.pin = Some(Pin { owner: "ann".into(), reason: "before the\nmigration".into(), at_ms: NOW_MS });
        for (verification, expected) in [
            (verification(None, Some("7.0.15")), "good, 104211 keys, loaded by server 7.0.15\n"),
            (verification(None, None), "by ann@ops1, in 4.2 s: good, 104211 keys; no server loaded it\n"),
            (verification(Some("its checksum is off"), None), ": bad: its checksum is off\n"),
        ] {
            row.verification = verification;
            let text = render_one(&row);
            assert!(text.contains(expected), "{expected} in {text}");
            assert!(text.contains("by ann: before the migration\n"), "{text}");
        }
    }

    #[test]
    fn a_suspicious_one_is_told_from_an_unusable_one_and_from_an_accepted_one() {
        let mut row = example::published().snapshots[0].clone();
        (row.good, row.suspicious, row.problem) = (false, true, Some("suspicious: it holds 3 keys".into()));
        assert!(render_list(&[row.clone()], NOW_MS).contains("suspicious  15 min"));
        assert!(render_one(&row).contains("state       suspicious: it holds 3 keys; aurora-redis snapshots accept"));
        (row.good, row.suspicious, row.problem) = (true, false, None);
        row.accepted = Some(Acceptance { owner: "ann".into(), reason: "emptied on purpose".into(), at_ms: NOW_MS });
        let text = render_one(&row);
        assert!(text.contains("state       good; accepted 2026-") && text.contains("by ann: emptied on purpose\n"), "{text}");
    }

    #[test]
    fn an_imported_one_tells_where_it_comes_from() {
        let from = "hdfs://old:8020/redis/dump.rdb".into();
        let imported = Imported { from, by: "ann".into(), at_ms: NOW_MS, cluster_id: Some("c9".into()), position: None };
        let row = SnapshotRow { good: false, imported: Some(imported), ..example::published().snapshots[0].clone() };
        let text = render_list(std::slice::from_ref(&row), NOW_MS);
        assert!(text.contains("imported  15 min") && text.contains("from hdfs://old:8020/redis/dump.rdb"), "{text}");
        let text = render_one(&row);
        assert!(text.contains("state       imported: it is used only when somebody names it\n"), "{text}");
        assert!(text.contains("server 7.0.15, of cluster c9; imported from hdfs://old:8020/redis/dump.rdb 2026-"), "{text}");
        let bad = SnapshotRow { problem: Some("piece 3".into()), ..row };
        assert!(render_list(&[bad], NOW_MS).contains("unusable  15 min"));
    }

    #[test]
    fn a_pin_that_cannot_be_read_is_one() {
        assert_eq!(word(0, "", ""), "- by somebody");
    }
}
