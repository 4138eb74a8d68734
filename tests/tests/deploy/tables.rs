//! The tables in the documents are made from what the programs themselves say: settings and metrics. `RENEW=1` writes them anew.

use agent::layers::Key;
use controller::metrics::Kind;

use crate::{project, text};

/// A table: the page it stands in, the mark before it, its text.
type Table = (&'static str, &'static str, String);

/// Every table there is.
fn tables() -> Vec<Table> {
    let settings = "docs/configuration.md";
    vec![
        (settings, "settings: agent", of_settings(agent::config::KEYS)),
        (settings, "settings: managed", of_managed()),
        (settings, "settings: controller", of_settings(controller::config::KEYS)),
        (settings, "settings: command line", of_settings(controller::config::COMMAND_LINE_KEYS)),
        (settings, "settings: cluster file", of_settings(controller::cluster_file::KEYS)),
        ("docs/http.md", "metrics: controller", of_controller_metrics()),
        ("docs/http.md", "metrics: agent", of_agent_metrics()),
    ]
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn of_settings(keys: &[Key]) -> String {
    let row = |key: &Key| {
        let default = key.default.map(|text| format!("`{}`", cell(text))).unwrap_or_default();
        format!("| `{}` | `{}` | {default} | {} |\n", key.name, cell(key.hint), cell(key.help))
    };
    let rows: String = keys.iter().map(row).collect();
    format!("| setting | value | default | what |\n|---|---|---|---|\n{rows}")
}

/// The settings of Redis that cannot be passed through, as the source lists them.
fn of_managed() -> String {
    let source = text("agent/src/redis/conf.rs");
    let list = source.split("const MANAGED").nth(1).and_then(|rest| rest.split("\n];").next()).expect("conf.rs lists them");
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| match &quoted(line)[..] {
        [name, why] => Some(format!("| `{name}` | {} |\n", cell(why))),
        _ => None,
    };
    let rows: String = list.lines().filter_map(row).collect();
    format!("| setting of Redis | why not |\n|---|---|\n{rows}")
}

fn of_controller_metrics() -> String {
    let row = |metric: &controller::metrics::Declared| {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        format!("| `aurora_redis_controller_{}` | {kind} | {labels} | {} |\n", metric.name, cell(metric.help))
    };
    let rows: String = controller::metrics::DECLARED.iter().map(row).collect();
    format!("| metric | kind | labels | what |\n|---|---|---|---|\n{rows}")
}

fn of_agent_metrics() -> String {
    let row = |metric: &agent::metrics::Declared| format!("| `aurora_redis_agent_{}` | {} |\n", metric.name, cell(metric.help));
    let rows: String = agent::metrics::DECLARED.iter().map(row).collect();
    format!("| gauge | what |\n|---|---|\n{rows}")
}

/// A page with one of its tables made anew.
fn renewed(page: &str, (name, mark, table): &Table) -> String {
    let begin = format!("<!-- {mark} -->\n");
    let from = page.find(&begin).unwrap_or_else(|| panic!("{name} has no '{}'", begin.trim())) + begin.len();
    let to = from + page[from..].find("<!-- end -->").unwrap_or_else(|| panic!("{name}: no end after {mark}"));
    format!("{}{table}{}", &page[..from], &page[to..])
}

#[test]
fn the_pages_list_every_setting_and_metric_as_the_programs_have_it() {
    for table in tables() {
        let page = text(table.0);
        let wanted = renewed(&page, &table);
        if std::env::var_os("RENEW").is_some() {
            std::fs::write(project(table.0), &wanted).expect("the page can be written");
        } else {
            assert!(page == wanted, "{} is not up to date; run: RENEW=1 cargo test -p tests --test deploy tables", table.0);
        }
    }
}

#[test]
fn every_table_is_made_by_somebody() {
    for page in ["docs/configuration.md", "docs/http.md"] {
        let made = tables().iter().filter(|table| table.0 == page).count();
        assert_eq!(text(page).matches("<!-- end -->").count(), made, "{page}");
    }
}
