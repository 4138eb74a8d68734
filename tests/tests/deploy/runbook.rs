//! The runbook has an entry for each reason and each alert, and none for what is gone.

use controller::model::Reason;

use crate::{assert_same, text};

const RUNBOOK: &str = "deploy/RUNBOOK.md";
const ALERTS: &str = "deploy/prometheus/alerts.yml";

/// The `###` headings below the `##` heading `section`, with their texts.
fn entries(section: &str) -> Vec<(String, String)> {
    let book = text(RUNBOOK);
    let from = book.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("{RUNBOOK} has no section {section}"));
    let rest = &book[from + 4..];
    let section = &rest[..rest.find("\n## ").unwrap_or(rest.len())];
    let cut = |entry: &str| entry.split_once('\n').map(|(name, body)| (name.trim().to_owned(), body.trim().to_owned()));
    section.split("\n### ").skip(1).filter_map(cut).collect()
}

fn names(section: &str) -> Vec<String> {
    entries(section).into_iter().map(|(name, _)| name).collect()
}

/// The values of `key` in the alert rules, which have one `key: value` a line.
fn in_alerts(key: &str) -> Vec<String> {
    let prefix = format!("{key}: ");
    let value = |line: &str| line.trim().trim_start_matches("- ").strip_prefix(&prefix).map(str::to_owned);
    text(ALERTS).lines().filter_map(value).collect()
}

#[test]
fn every_reason_has_its_entry_and_every_entry_its_reason() {
    let reasons = Reason::ALL.iter().map(|reason| reason.name().to_owned()).collect();
    assert_same("reasons", ("controller::model::Reason", reasons), (RUNBOOK, names("Reasons")));
}

#[test]
fn every_alert_has_its_entry_and_every_entry_its_alert() {
    let alerts = in_alerts("alert");
    assert!(!alerts.is_empty(), "no alert in {ALERTS}");
    assert_same("alerts", (ALERTS, alerts), (RUNBOOK, names("Alerts")));
}

#[test]
fn every_alert_links_to_its_own_entry() {
    let links: Vec<String> = in_alerts("alert").iter().map(|name| format!("{RUNBOOK}#{}", name.to_lowercase())).collect();
    assert_eq!(in_alerts("runbook"), links);
}

#[test]
fn every_reason_says_what_it_means_where_to_look_and_what_to_do() {
    for (name, body) in entries("Reasons") {
        for part in ["**Means** ", "**Look** ", "**Do** "] {
            assert!(body.contains(part), "{RUNBOOK}: {name} has no {part}");
        }
    }
}
