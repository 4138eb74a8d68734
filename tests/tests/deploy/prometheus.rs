//! Prometheus' own tool accepts the configuration and the rules, and the rules fire and keep silent as they should.

use crate::{run, text, tool};

/// Every metric that the programs declare, by its whole name.
fn declared() -> Vec<String> {
    controller::metrics::DECLARED.iter().map(|metric| format!("aurora_redis_controller_{}", metric.name)).collect()
}

/// The words of a text that begin like our metrics.
fn named(text: &str) -> Vec<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|word| word.starts_with("aurora_redis_")).collect()
}

#[test]
fn alerts_rest_on_metrics_that_exist() {
    let declared = declared();
    for file in ["deploy/prometheus/alerts.yml", "deploy/tests/alerts_test.yml"] {
        let rules = text(file);
        assert!(named(&rules).len() > 10, "{file} names no metric of ours");
        let unknown: Vec<_> = named(&rules).into_iter().filter(|name| !declared.iter().any(|known| known == name)).collect();
        assert!(unknown.is_empty(), "{file} names metrics that nobody exports: {unknown:?}");
    }
}

/// A reason that an alert selects by name has to be in the closed list, or the alert never fires.
#[test]
fn alerts_select_reasons_that_exist() {
    let known: Vec<&str> = controller::model::Reason::ALL.iter().map(|reason| reason.name()).collect();
    let rules = text("deploy/prometheus/alerts.yml");
    let quoted = rules.split("reason=").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let selected: Vec<&str> = quoted.flat_map(|names| names.split('|')).collect();
    assert!(!selected.is_empty());
    for reason in selected {
        assert!(known.contains(&reason), "an alert selects the reason {reason}, which does not exist");
    }
}

#[test]
fn promtool_accepts_the_scrape_configuration_and_its_rules() {
    run(tool("promtool").args(["check", "config", "deploy/prometheus/scrape.yml"]));
}

#[test]
fn promtool_finds_nothing_to_complain_about_in_the_rules() {
    run(tool("promtool").args(["check", "rules", "--lint=all", "--lint-fatal", "deploy/prometheus/alerts.yml"]));
}

#[test]
fn alerts_fire_when_they_should_and_not_otherwise() {
    run(tool("promtool").args(["test", "rules", "deploy/tests/alerts_test.yml"]));
}
