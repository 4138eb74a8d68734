//! Examples, links and file names in the documents are true.

use agent::snapshot::Manifest;

use crate::{project, text};

const PAGES: [&str; 5] = ["deploy/RUNBOOK.md", "docs/configuration.md", "docs/protocol.md", "docs/snapshots.md", "CHANGELOG.md"];

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
