//! Examples, links and file names in the documents are true.

use std::process::Command;

use agent::snapshot::Manifest;
use controller::cluster_file::ClusterFile;
use controller::http::ClusterAnswer;
use controller::view::Ask;

use tests::harness::binaries;

use crate::{assert_same, project, run, text};

/// Every document, by its path from the top.
fn pages() -> Vec<String> {
    let markdown = |dir: &str| {
        let entries = std::fs::read_dir(project(dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
        let names = entries.map(|entry| entry.expect("a directory can be read").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".md")).map(|name| format!("{dir}/{name}")).collect::<Vec<_>>()
    };
    [".", "docs", "deploy", "tests"].into_iter().flat_map(markdown).collect()
}

/// The fenced blocks of one language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let page = text(page);
    let fence = format!("\n```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block.to_owned())).collect()
}

#[test]
fn the_manifest_shown_is_one() {
    let shown = blocks("docs/snapshots.md", "json");
    let manifest = Manifest::parse(shown[0].as_bytes()).expect("docs/snapshots.md shows a manifest that can be read");
    assert!(text("docs/snapshots.md").contains(manifest.id().as_str()), "its name is {}, another is shown", manifest.id());
}

/// Every `path/with.ext` or `path/` in backticks whose first part is a directory of the project is there.
#[test]
fn files_that_are_named_exist() {
    let top = ["agent/", "aurora/", "controller/", "deploy/", "docs/", "tests/", ".ci/"];
    for page in pages() {
        let page_text = text(&page);
        let named = page_text.split('`').skip(1).step_by(2).filter(|word| top.iter().any(|dir| word.starts_with(dir)));
        for path in named.filter(|path| !path.contains([' ', '*', '{', '…'])) {
            let near = project(&page).with_file_name(path);
            assert!(project(path).exists() || near.exists(), "{page} names {path}, which is not there");
        }
    }
}

/// The protocol names the tests that hold its rules; each of them is there.
#[test]
fn tests_that_are_named_exist() {
    let page = text("docs/protocol.md");
    let words = page.split('`').skip(1).step_by(2).filter(|word| word.matches('_').count() >= 4);
    let named: Vec<&str> = words.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_')).collect();
    assert!(named.len() > 30, "{named:?}");
    let sources = run(Command::new("grep")
        .args(["-rhoE", "--include=*.rs", "fn [a-z_]+\\("])
        .args(["agent", "controller", "tests"])
        .current_dir(project("")));
    for name in named {
        assert!(sources.contains(&format!("fn {name}(")), "docs/protocol.md names the test {name}, which is not there");
    }
}

/// Every setting named in backticks with its section is one.
#[test]
fn settings_that_are_named_exist() {
    let known: Vec<&str> = [agent::config::KEYS, controller::config::KEYS, controller::cluster_file::KEYS]
        .into_iter()
        .flatten()
        .map(|key| key.name)
        .collect();
    let sections = ["agents.", "bootstrap.", "failover.", "snapshots."];
    for page in pages() {
        let page_text = text(&page);
        for word in
            page_text.split('`').skip(1).step_by(2).filter(|word| sections.iter().any(|section| word.starts_with(section)))
        {
            assert!(known.contains(&word), "{page} names the setting {word}, which is not there");
        }
    }
}

/// Every link to another document, and to a heading in it, leads somewhere.
#[test]
fn links_lead_somewhere() {
    for page in pages() {
        let page_text = text(&page);
        let targets = page_text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                project(&page)
            } else {
                project(&page).parent().expect("a page is in a directory").join(file)
            };
            let found = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page} links to {target}: {error}"));
            let anchors = found.lines().filter(|line| line.starts_with('#')).map(anchor).collect::<Vec<_>>();
            assert!(
                heading.is_empty() || anchors.iter().any(|known| known == heading),
                "{page} links to {target}; there are {anchors:?}"
            );
        }
    }
}

/// The name under which a heading can be linked to.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Every `aurora-redis VERB …` in the documents is a command there is.
#[test]
fn commands_that_are_named_exist() {
    let program = binaries::ours("aurora-redis").unwrap_or_else(|error| panic!("{error:#}"));
    let help = run(Command::new(program).arg("--help"));
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("the help lists the commands");
    let verbs: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for page in pages() {
        let page_text = text(&page);
        let commands =
            ["`aurora-redis ", "\naurora-redis ", "; aurora-redis "].into_iter().flat_map(|begin| page_text.split(begin).skip(1));
        for command in commands {
            let verb: String = command.chars().take_while(char::is_ascii_lowercase).collect();
            let is_option = command.starts_with('-');
            assert!(is_option || verbs.contains(&&*verb), "{page}: no command {verb:?} in {verbs:?}");
        }
    }
}

#[test]
fn the_example_of_a_cluster_file_is_one() {
    let file = ClusterFile::load(&project("deploy/cluster.toml")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(file.cluster, "redis/prod/cache");
}

#[test]
fn the_answers_and_questions_shown_for_the_controller_are_real() {
    let shown = blocks("docs/http.md", "json");
    let asks: Vec<Ask> = shown[0].lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let kinds: std::collections::BTreeSet<&str> = asks.iter().map(Ask::kind).collect();
    assert_eq!(kinds, ["backup", "cancel-migration", "cut-over", "failover", "migrate", "restore", "scale", "switchover"].into());
    let answer: serde_json::Value = serde_json::from_str(&shown[1]).expect("JSON");
    let real: ClusterAnswer = serde_json::from_str(&shown[1]).expect("docs/http.md shows an answer of /api/v1/cluster");
    assert_eq!(serde_json::to_value(&real).expect("it can be written"), answer, "docs/http.md shows other fields than there are");
}

#[test]
fn the_paths_listed_are_those_served() {
    let sources: [(&str, &[&str]); 2] =
        [("Controller", &["controller/src/http.rs"]), ("Agent", &["agent/src/http.rs", "agent/src/http/questions.rs"])];
    let page = text("docs/http.md");
    for (title, files) in sources {
        let mut served: Vec<String> = files.iter().flat_map(|file| quoted_after(&text(file), ".route(\"")).collect();
        let section = page.split("\n## ").find(|section| section.starts_with(title)).expect("a section");
        let mut listed: Vec<String> = section.lines().filter(|line| line.starts_with("| `")).flat_map(paths).collect();
        for paths in [&mut served, &mut listed] {
            paths.iter_mut().for_each(|path| *path = path.replace("{verb}", "<verb>"));
        }
        assert_same(title, ("the source", served), ("docs/http.md", listed));
    }
}

/// What stands in quotes after each occurrence of `before`, which ends with the opening quote.
fn quoted_after(source: &str, before: &str) -> Vec<String> {
    let quoted = source.split(before).skip(1).filter_map(|rest| rest.split_once('"'));
    quoted.map(|(path, _)| path.to_owned()).collect()
}

/// The paths in the first cell of a row: `GET /x`, `POST /y`.
fn paths(row: &str) -> Vec<String> {
    let cell = row.split(" | ").next().unwrap_or_default();
    cell.split('`')
        .filter_map(|word| word.split_once(' '))
        .map(|(_, path)| path.to_owned())
        .filter(|path| path.starts_with('/'))
        .collect()
}
