//! The controller's metrics, `GET /metrics`. What the last cycle published is turned into gauges at each scrape, so that no series of a
//! gone instance stays behind; what is counted over time lives in [`Metrics`], which `act` and `reconcile` count into.
//!
//! [`DECLARED`] is the one list of names; dashboards, alerts and documentation are compared with it.

use std::collections::BTreeMap;

use agent::api::Role;
use agent::record::Phase;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, GaugeVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use crate::model::Reason;
use crate::view::{ClusterView, HistoryEntry, Proof, Published};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value of now.
    Gauge,
    /// Only grows, from 0 at this process's start unless its help says otherwise.
    Counter,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Name without `aurora_redis_controller_`.
    pub name: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Labels; their values come from closed sets.
    pub labels: &'static [&'static str],
    /// For people.
    pub help: &'static str,
}

const PREFIX: &str = "aurora_redis_controller_";

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Declared {
    Declared { name, kind: Kind::Gauge, labels, help }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Declared {
    Declared { name, kind: Kind::Counter, labels, help }
}

/// Every metric but the process's own (`process_…`). A standby shows `info`, `leading` and the counters only.
pub const DECLARED: &[Declared] = &[
    gauge("info", &["version", "cluster"], "Always 1: version of the program and the cluster it serves."),
    gauge("leading", &[], "1 when this controller leads, 0 when it stands by."),
    gauge("last_success_timestamp_seconds", &[], "When a whole cycle last succeeded; 0 before."),
    gauge("cycle", &[], "Cycles since this controller began to lead."),
    gauge("epoch", &[], "Present epoch; 0 before the first master."),
    gauge("phase", &["phase"], "1 for the phase the record is in, 0 for the others."),
    gauge("has_master", &[], "1 while a master serves."),
    gauge("instances_desired", &[], "Servers wanted (spec)."),
    gauge("instances", &["state"], "Instances by state."),
    gauge("roles", &["role"], "Serving instances by role."),
    gauge("replicas_proven", &[], "Replicas that a write made after their attach is known to have reached."),
    gauge("agents_silent", &[], "Agents not heard in time."),
    gauge("lag_bytes_max", &[], "Bytes the farthest comparable replica is behind the master."),
    gauge("forecast_loss_bytes", &[], "Bytes of the stream lost if the master died now; absent when nobody could take over."),
    gauge("snapshot_age_seconds", &[], "Age of the latest good snapshot; absent when there is none."),
    gauge("snapshot_timestamp_seconds", &[], "When the latest good snapshot was made; absent when there is none."),
    gauge(
        "snapshot_verified_timestamp_seconds",
        &[],
        "When the newest snapshot was made that was verified and found good; absent when none was.",
    ),
    gauge(
        "snapshot_rehearsed_timestamp_seconds",
        &[],
        "When the newest snapshot was made that a rehearsal restored; absent when none was.",
    ),
    gauge("rehearsal_timestamp_seconds", &[], "When a restore was last rehearsed; absent when none was."),
    gauge(
        "rehearsal_duration_seconds",
        &[],
        "How long the last rehearsed restore took, from the listing to the last key; absent before.",
    ),
    gauge("snapshots_suspicious", &[], "Snapshots that hold hardly anything of what the one before them held."),
    gauge("snapshot_bytes", &[], "Size of the latest good snapshot; absent when there is none."),
    gauge("snapshots", &["good"], "Snapshots in the catalogue, usable (true) or not (false); imported ones are neither."),
    gauge("condition", &["reason"], "1 while a condition of this reason holds (see the runbook), else 0."),
    gauge("waiting", &["reason"], "1 while the plan waits for this reason, else 0."),
    gauge("operation_running", &[], "1 while an operation (backup, restore, failover, bootstrap) is under way."),
    gauge("last_failover_pause_seconds", &[], "Last failover: from noticing the loss to the first proven write; absent before."),
    gauge("last_failover_loss_bytes", &[], "Last failover: bytes of the stream lost, as far as known; absent when unknown."),
    counter("failovers_total", &[], "Failovers in the cluster's recorded history."),
    counter("actions_total", &["action", "outcome"], "Actions by what came of them."),
    counter("violations_total", &[], "Plans that would have broken an invariant and were not run."),
    counter("asks_total", &["kind", "accepted"], "What was asked through the API, taken on (true) or refused (false)."),
];

const STATES: [&str; 11] =
    ["serving", "closed", "connecting", "syncing", "loading", "not-answering", "fenced", "idle", "silent", "pending", "foreign"];
const PHASES: [(Phase, &str); 4] = [
    (Phase::Bootstrapping, "bootstrapping"),
    (Phase::Stable, "stable"),
    (Phase::Deposing, "deposing"),
    (Phase::Promoting, "promoting"),
];

/// The counters; cheap to clone, all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    actions: IntCounterVec,
    violations: IntCounter,
    asks: IntCounterVec,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All counters at 0.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let actions = IntCounterVec::new(options("actions_total"), &["action", "outcome"]).expect("declared names are valid");
        let violations = IntCounter::with_opts(options("violations_total")).expect("declared names are valid");
        let asks = IntCounterVec::new(options("asks_total"), &["kind", "accepted"]).expect("declared names are valid");
        let collectors: [Box<dyn prometheus::core::Collector>; 4] = [
            Box::new(actions.clone()),
            Box::new(violations.clone()),
            Box::new(asks.clone()),
            Box::new(ProcessCollector::for_self()),
        ];
        for collector in collectors {
            registry.register(collector).expect("each name is registered once in a registry of its own");
        }
        Metrics { registry, actions, violations, asks }
    }

    /// Counts an action: [`crate::model::Action::kind`] and [`crate::model::Outcome::kind`].
    pub fn count_action(&self, action: &str, outcome: &str) {
        self.actions.with_label_values(&[action, outcome]).inc();
    }

    /// Counts plans that were vetoed.
    pub fn count_violations(&self, number: usize) {
        self.violations.inc_by(number as u64);
    }

    /// Counts something asked through the API.
    pub fn count_ask(&self, kind: &str, accepted: bool) {
        self.asks.with_label_values(&[kind, if accepted { "true" } else { "false" }]).inc();
    }

    /// The text of `/metrics` (format `text/plain; version=0.0.4`); `now_ms` is Unix time in milliseconds.
    pub fn render(&self, cluster: &str, published: &Published, now_ms: u64) -> String {
        let mut families = self.registry.gather();
        families.extend(gauges(cluster, published, now_ms).gather());
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("writing into memory does not fail");
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn declared(name: &str) -> &'static Declared {
    DECLARED.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("metric {name} is not declared"))
}

fn options(name: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), declared(name).help)
}

/// A registry filled from one publication.
struct Scrape(Registry);

impl Scrape {
    fn set(&self, name: &str, value: f64) {
        self.set_all(name, [(vec![], value)]);
    }

    fn set_some(&self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn set_all<'a>(&self, name: &str, series: impl IntoIterator<Item = (Vec<&'a str>, f64)>) {
        let metric = declared(name);
        let register =
            |collector: Box<dyn prometheus::core::Collector>| self.0.register(collector).expect("each metric is set once");
        match metric.kind {
            Kind::Gauge => {
                let gauge = GaugeVec::new(options(name), metric.labels).expect("declared names are valid");
                series.into_iter().for_each(|(labels, value)| gauge.with_label_values(&labels).set(value));
                register(Box::new(gauge));
            }
            Kind::Counter => {
                let counter = prometheus::CounterVec::new(options(name), metric.labels).expect("declared names are valid");
                series.into_iter().for_each(|(labels, value)| counter.with_label_values(&labels).inc_by(value));
                register(Box::new(counter));
            }
        }
    }
}

fn gauges(cluster: &str, published: &Published, now_ms: u64) -> Registry {
    let scrape = Scrape(Registry::new());
    scrape.set_all("info", [(vec![env!("CARGO_PKG_VERSION"), cluster], 1.0)]);
    scrape.set("leading", flag(published.leading));
    if published.leading {
        cluster_gauges(&scrape, &published.cluster);
        snapshot_gauges(&scrape, published, now_ms);
        history_gauges(&scrape, &published.history);
        let running = published.operation.as_ref().is_some_and(|operation| operation.outcome.is_none());
        scrape.set("operation_running", flag(running));
        scrape.set("cycle", published.plan.cycle as f64);
        scrape.set("last_success_timestamp_seconds", published.last_success_ms as f64 / 1000.0);
        reasons(&scrape, "condition", published.cluster.conditions.iter().map(|condition| condition.reason.as_str()));
        reasons(&scrape, "waiting", published.plan.waits.iter().map(|wait| wait.reason.as_str()));
    }
    scrape.0
}

fn cluster_gauges(scrape: &Scrape, cluster: &ClusterView) {
    scrape.set("epoch", cluster.epoch as f64);
    scrape.set_all("phase", PHASES.iter().map(|(phase, name)| (vec![*name], flag(cluster.phase == Some(*phase)))));
    scrape.set("has_master", flag(cluster.master.is_some()));
    scrape.set("instances_desired", f64::from(cluster.desired_instances));
    let in_state = |state: &str| cluster.instances.iter().filter(|instance| instance.state == state).count() as f64;
    scrape.set_all("instances", STATES.iter().map(|state| (vec![*state], in_state(state))));
    let serving = |role: Role| cluster.instances.iter().filter(|i| i.state == "serving" && i.role == role).count() as f64;
    scrape.set_all("roles", [(vec!["master"], serving(Role::Master)), (vec!["replica"], serving(Role::Replica))]);
    let proven = cluster.instances.iter().filter(|instance| instance.role == Role::Replica && instance.proven).count();
    scrape.set("replicas_proven", proven as f64);
    scrape.set("agents_silent", in_state("silent"));
    scrape.set_some(
        "lag_bytes_max",
        cluster.instances.iter().filter_map(|instance| instance.lag_bytes).max().map(|lag| lag as f64),
    );
    scrape.set_some("forecast_loss_bytes", cluster.if_master_died.as_ref().map(|forecast| forecast.loss_bytes as f64));
}

fn snapshot_gauges(scrape: &Scrape, published: &Published, now_ms: u64) {
    let latest = published.cluster.snapshot.as_ref();
    scrape.set_some("snapshot_age_seconds", latest.map(|snapshot| now_ms.saturating_sub(snapshot.created_ms) as f64 / 1000.0));
    scrape.set_some("snapshot_bytes", latest.map(|snapshot| snapshot.bytes as f64));
    scrape.set_some("snapshot_timestamp_seconds", latest.map(|snapshot| snapshot.created_ms as f64 / 1000.0));
    let proof = Proof::of(&published.snapshots);
    scrape.set_some("snapshot_verified_timestamp_seconds", proof.verified.map(|s| s.created_ms as f64 / 1000.0));
    scrape.set_some("snapshot_rehearsed_timestamp_seconds", proof.restored.map(|s| s.created_ms as f64 / 1000.0));
    scrape.set_some("rehearsal_timestamp_seconds", proof.rehearsal.map(|r| r.at_ms as f64 / 1000.0));
    scrape.set_some("rehearsal_duration_seconds", proof.rehearsal.map(|r| r.took_ms as f64 / 1000.0));
    scrape.set("snapshots_suspicious", published.snapshots.iter().filter(|snapshot| snapshot.suspicious).count() as f64);
    let own = || published.snapshots.iter().filter(|snapshot| !snapshot.is_import());
    let good = own().filter(|snapshot| snapshot.good).count();
    scrape.set_all("snapshots", [(vec!["true"], good as f64), (vec!["false"], (own().count() - good) as f64)]);
}

fn history_gauges(scrape: &Scrape, history: &[HistoryEntry]) {
    let failovers: Vec<_> = history.iter().filter(|entry| entry.kind == "failover").collect();
    scrape.set("failovers_total", failovers.len() as f64);
    let last = failovers.iter().max_by_key(|entry| entry.epoch);
    scrape.set_some("last_failover_pause_seconds", last.and_then(|entry| entry.pause_ms).map(|ms| ms as f64 / 1000.0));
    scrape.set_some("last_failover_loss_bytes", last.and_then(|entry| entry.loss_bytes).map(|bytes| bytes as f64));
}

fn reasons<'a>(scrape: &Scrape, name: &str, holding: impl Iterator<Item = &'a str>) {
    let mut series: BTreeMap<&str, f64> = Reason::ALL.iter().map(|reason| (reason.name(), 0.0)).collect();
    for reason in holding {
        if let Some(value) = series.get_mut(reason) {
            *value = 1.0;
        }
    }
    scrape.set_all(name, series.into_iter().map(|(reason, value)| (vec![reason], value)));
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    fn value(text: &str, series: &str) -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(&format!("{PREFIX}{series} "))?.parse().ok())
    }

    #[test]
    fn a_leader_shows_every_declared_metric() {
        let metrics = Metrics::new();
        metrics.count_action("promote", "done");
        metrics.count_ask("backup", false);
        let mut published = example::published();
        let found = agent::snapshot::Verification {
            at_ms: 7_000,
            by: String::new(),
            problem: None,
            keys: None,
            loaded_by: None,
            took_ms: 1_500,
        };
        (published.snapshots[0].verification, published.snapshots[0].rehearsal) = (Some(found.clone()), Some(found));
        let text = metrics.render("www/prod/cache", &published, published.cluster.snapshot.as_ref().unwrap().created_ms + 90_000);
        for metric in DECLARED {
            assert!(text.contains(&format!("# TYPE {PREFIX}{} ", metric.name)), "{} is missing in\n{text}", metric.name);
        }
        assert_eq!(value(&text, "snapshot_age_seconds"), Some(90.0));
        assert_eq!(value(&text, "snapshot_verified_timestamp_seconds"), value(&text, "snapshot_timestamp_seconds"));
        assert_eq!(
            (value(&text, "rehearsal_timestamp_seconds"), value(&text, "rehearsal_duration_seconds")),
            (Some(7.0), Some(1.5))
        );
        assert_eq!(value(&text, "roles{role=\"master\"}"), Some(1.0));
        assert_eq!(value(&text, "instances{state=\"silent\"}"), Some(1.0));
        assert_eq!(value(&text, "condition{reason=\"agent-silent\"}"), Some(1.0));
        assert_eq!(value(&text, "condition{reason=\"no-quorum\"}"), Some(0.0));
        assert_eq!(value(&text, "actions_total{action=\"promote\",outcome=\"done\"}"), Some(1.0));
        assert_eq!(value(&text, "failovers_total"), Some(1.0));
        assert!(text.contains("process_resident_memory_bytes "));
    }

    #[test]
    fn a_standby_shows_only_itself() {
        let text = Metrics::new().render("www/prod/cache", &Published::default(), 0);
        assert_eq!(value(&text, "leading"), Some(0.0));
        assert_eq!(value(&text, "epoch"), None);
    }

    #[test]
    fn names_follow_the_rules() {
        for metric in DECLARED {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
