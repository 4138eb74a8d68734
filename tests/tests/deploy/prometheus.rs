//! Prometheus' own tool accepts the configuration and the rules, and the rules fire and keep silent as they should.

use crate::{run, tool};

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
