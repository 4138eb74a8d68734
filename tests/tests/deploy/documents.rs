//! Examples, links and file names in the documents are true.

use agent::snapshot::Manifest;
use controller::http::ClusterAnswer;
use controller::view::Ask;

use crate::{assert_same, project, text};

const PAGES: [&str; 6] =
    ["deploy/RUNBOOK.md", "docs/configuration.md", "docs/http.md", "docs/protocol.md", "docs/snapshots.md", "CHANGELOG.md"];

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
    for page in PAGES {
        let page_text = text(page);
        let named = page_text.split('`').skip(1).step_by(2).filter(|word| top.iter().any(|dir| word.starts_with(dir)));
        for path in named.filter(|path| !path.contains([' ', '*', '{', '…'])) {
            assert!(project(path).exists(), "{page} names {path}, which is not there");
        }
    }
}

#[test]
fn the_answers_and_questions_shown_for_the_controller_are_real() {
    let shown = blocks("docs/http.md", "json");
    let asks: Vec<Ask> = shown[0].lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(asks.len(), 3);
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
