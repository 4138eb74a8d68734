//! `restore`: into a cluster that lost its master, or, by name and with consent, into one that serves.

use agent::api::Epoch;
use agent::snapshot::SnapshotId;
use clap::Args;

use super::ask::confirm;
use super::door::Door;
use super::operations::{accepted, finish};
use super::table::{bytes, clean, date, time};
use super::{Context, Failure, owner};
use crate::http::ClusterAnswer;
use crate::view::{Ask, Reply, RestorePlan, SnapshotRow};

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The snapshot by its name, or `latest` for the newest good one. Left out, in a cluster without a master: the best copy there is.
    #[arg(value_name = "SNAPSHOT|latest")]
    snapshot: Option<Choice>,
    /// The newest good one that is not younger than this (UTC), e.g. 2026-11-24T05:43:55Z or '2026-11-24 05:43'.
    #[arg(long, value_name = "TIME", conflicts_with = "snapshot", value_parser = moment)]
    at: Option<u64>,
    /// Show what would happen, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// In a cluster that serves: have its data saved and replaced, for this epoch (the plan shows it). Otherwise: go on without proof that the last
    /// master is gone. Make sure that it is: two masters lose writes.
    #[arg(long, value_name = "EPOCH", num_args = 0..=1)]
    consent: Option<Option<Epoch>>,
    /// Start without any data, where no copy of it is left. Needs --consent.
    #[arg(long, requires = "consent", conflicts_with_all = ["snapshot", "at"])]
    empty: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Return as soon as the controller has taken it on.
    #[arg(long)]
    no_wait: bool,
}

/// Which snapshot.
#[derive(Clone, Debug, PartialEq)]
enum Choice {
    Latest,
    Named(SnapshotId),
}

impl std::str::FromStr for Choice {
    type Err = String;
    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "latest" => Ok(Choice::Latest),
            name => name.parse().map(Choice::Named),
        }
    }
}

/// A time in UTC, as Unix time in milliseconds.
fn moment(text: &str) -> Result<u64, String> {
    let zoned = text.parse::<jiff::Timestamp>().ok();
    let plain = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp());
    let found = zoned.or_else(plain).and_then(|stamp| u64::try_from(stamp.as_millisecond()).ok());
    found.ok_or_else(|| "it is no time like 2026-11-24T05:43:55Z".into())
}

pub(super) async fn run(context: &Context, wanted: Restore) -> Result<(), Failure> {
    let door = Door::find(context).await?;
    let (answer, snapshots): (ClusterAnswer, Vec<SnapshotRow>) = tokio::try_join!(door.get("cluster"), door.get("snapshots"))?;
    let named = pick(&wanted, &snapshots)?;
    let id = named.map(|row| row.id.clone());
    let ask = |dry_run, consent_epoch| Ask::Restore {
        owner: owner(),
        snapshot: id.clone(),
        consent_epoch,
        empty: wanted.empty,
        dry_run,
    };
    if named.is_some() || wanted.dry_run {
        let stated = wanted.consent.map(|epoch| epoch.unwrap_or(answer.cluster.epoch));
        let shown = door.ask(&ask(true, stated)).await?;
        if shown.plan.is_some() {
            return replace(context, &door, &wanted, shown, |epoch| ask(false, Some(epoch))).await;
        }
        if wanted.dry_run {
            let source = named.or_else(|| snapshots.iter().find(|s| s.good));
            eprintln!("{}", restore_plan(&answer, source, wanted.consent.is_some()));
            let shown = accepted(shown)?;
            return context.print(&shown, || clean(&shown.message));
        }
    }
    let source = named.or_else(|| snapshots.iter().find(|s| s.good));
    eprintln!("{}", restore_plan(&answer, source, wanted.consent.is_some()));
    confirm(&format!("Restore {}?", context.place.cluster), wanted.yes)?;
    let consent = wanted.consent.map(|epoch| epoch.unwrap_or(answer.cluster.epoch));
    let reply = accepted(door.ask(&ask(false, consent)).await?)?;
    finish(context, &reply, wanted.no_wait).await
}

/// The snapshot that is meant; none when none is named.
fn pick<'a>(wanted: &Restore, snapshots: &'a [SnapshotRow]) -> Result<Option<&'a SnapshotRow>, Failure> {
    let good = || snapshots.iter().filter(|s| s.good);
    let (found, what) = match (&wanted.snapshot, wanted.at) {
        (Some(Choice::Named(id)), _) => (snapshots.iter().find(|s| s.id == *id), format!("no snapshot {id}")),
        (Some(Choice::Latest), _) => (good().next(), "no good snapshot".into()),
        (None, Some(at)) => {
            let not_after = good().filter(|s| s.created_ms <= at).max_by_key(|s| s.created_ms);
            (not_after, format!("no good snapshot of {} or before", date(at)))
        }
        (None, None) => return Ok(None),
    };
    found.map(Some).ok_or_else(|| Failure::Failed(format!("the store holds {what}")))
}

/// Into a cluster that serves: the plan, and with consent for its epoch the operation.
async fn replace(
    context: &Context,
    door: &Door,
    wanted: &Restore,
    shown: Reply,
    ask: impl FnOnce(Epoch) -> Ask,
) -> Result<(), Failure> {
    let Some(plan) = shown.plan.as_deref() else { return Ok(()) };
    let consent = wanted.consent.flatten();
    let text = render(&context.place.cluster, plan);
    if wanted.dry_run || consent.is_none() {
        context.print(plan, || text)?;
        return match (plan.objections.is_empty(), wanted.dry_run) {
            (false, _) => Err(Failure::Failed(format!("it would be refused: {}", clean(&plan.objections.join("; "))))),
            (true, true) => Ok(()),
            (true, false) => Err(Failure::Failed(format!("nothing was done. To have it done: {}", plan.command))),
        };
    }
    eprintln!("{text}");
    confirm(&format!("Save the data of {} and replace it?", context.place.cluster), wanted.yes)?;
    let reply = accepted(door.ask(&ask(consent.unwrap_or_default())).await?)?;
    finish(context, &reply, wanted.no_wait).await
}

/// The plan for people.
fn render(cluster: &str, plan: &RestorePlan) -> String {
    let row = &plan.snapshot;
    let keys = |keys: Option<u64>| keys.map_or("unknown keys".into(), |keys| format!("{keys} keys"));
    let verified = match &row.verification {
        Some(v) if v.problem.is_none() => format!("verified {}", date(v.at_ms)),
        Some(_) => "found bad".into(),
        None => "never verified".into(),
    };
    let pinned = if row.pin.is_some() { "pinned" } else { "not pinned" };
    let rdb = if row.rdb.is_empty() { String::new() } else { format!(" ({})", row.rdb) };
    let mut text = format!("{cluster} serves, epoch {}: its data would be replaced\n", plan.epoch);
    text += &format!("  snapshot: {} of {}, {} old\n", row.id, date(row.created_ms), time(plan.age_ms));
    text += &format!(
        "            {}, {}, written by {}{rdb}; {verified}, {pinned}\n",
        bytes(Some(row.bytes)),
        keys(row.keys),
        row.server
    );
    if let Some(problem) = &row.problem {
        text += &format!("            {problem}\n");
    }
    if let Some(imported) = &row.imported {
        text += &format!("            imported from {}: it is none of this cluster's data\n", imported.from);
    }
    text += &format!("  present:  {} keys, master is instance {}\n", plan.present_keys, plan.master);
    for (n, step) in plan.steps.iter().enumerate() {
        text += &format!("  {}. {step}\n", n + 1);
    }
    for objection in &plan.objections {
        text += &format!("  against it: {objection}\n");
    }
    if plan.objections.is_empty() {
        text += &format!("  command:  {}\n", plan.command);
    }
    text.lines().map(|line| clean(line) + "\n").collect()
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
            if let Some(imported) = &snapshot.imported {
                text += &format!("  origin:  imported from {}: it is none of this cluster's data\n", clean(&imported.from));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

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
    fn the_plan_into_a_cluster_that_serves_names_what_is_replaced_and_what_speaks_against_it() {
        let published = example::published();
        let mut plan = RestorePlan {
            snapshot: published.snapshots[0].clone(),
            age_ms: 900_000,
            epoch: 7,
            master: 1,
            present_keys: 12,
            loader: Some(2),
            others: vec![0, 1],
            steps: vec!["writes stop".into()],
            objections: Vec::new(),
            command: "aurora-redis restore X --consent 7".into(),
        };
        let text = render("www/prod/cache", &plan);
        for part in
            ["epoch 7", "15 min old", "REDIS0010", "12 keys, master is instance 1", "1. writes stop", "command:  aurora-redis"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        plan.objections.push("too\u{1b}new".into());
        let text = render("www/prod/cache", &plan);
        assert!(text.contains("against it: too new") && !text.contains("command:"), "{text}");
    }

    #[test]
    fn a_snapshot_is_named_meant_by_its_place_or_by_a_time() {
        let published = example::published();
        let rows = &published.snapshots;
        let wanted =
            |snapshot, at| Restore { snapshot, at, dry_run: false, consent: None, empty: false, yes: false, no_wait: false };
        let picked = |wanted: &Restore| pick(wanted, rows).ok().flatten().map(|row| row.id.clone());
        let good = rows.iter().find(|row| row.good).unwrap();
        assert_eq!(picked(&wanted(Some(Choice::Latest), None)), Some(good.id.clone()));
        assert_eq!(picked(&wanted(Some(Choice::Named(rows[1].id.clone())), None)), Some(rows[1].id.clone()));
        assert_eq!(picked(&wanted(None, Some(good.created_ms))), Some(good.id.clone()));
        assert!(pick(&wanted(None, Some(1)), rows).is_err(), "nothing is so old");
        assert!(matches!(pick(&wanted(None, None), rows), Ok(None)));
    }

    #[test]
    fn times_are_read_in_utc() {
        assert_eq!(moment("2026-11-24T05:00:00Z"), Ok(1_795_496_400_000));
        assert_eq!(moment("2026-11-24 05:00"), Ok(1_795_496_400_000));
        assert_eq!(moment("2026-11-24T06:00:00+01:00"), Ok(1_795_496_400_000));
        assert!(moment("yesterday").is_err());
    }
}
