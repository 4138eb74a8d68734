//! The tables of `docs/configuration.md` are what the programs themselves say of their settings.

use agent::layers::Key;

use crate::{project, text};

const PAGE: &str = "docs/configuration.md";

/// The settings by program, as the page names them.
fn programs() -> Vec<(&'static str, &'static [Key])> {
    vec![("controller", controller::config::KEYS), ("command line", controller::config::COMMAND_LINE_KEYS)]
}

/// The table of some settings.
fn table(keys: &[Key]) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let row = |key: &Key| {
        let default = key.default.map(|text| format!("`{}`", cell(text))).unwrap_or_default();
        format!("| `{}` | `{}` | {default} | {} |\n", key.name, cell(key.hint), cell(key.help))
    };
    let rows: String = keys.iter().map(row).collect();
    format!("| setting | value | default | what |\n|---|---|---|---|\n{rows}")
}

/// The page with the tables made anew.
fn renewed(page: &str) -> String {
    programs().into_iter().fold(page.to_owned(), |page, (program, keys)| {
        let begin = format!("<!-- settings: {program} -->\n");
        let from = page.find(&begin).unwrap_or_else(|| panic!("{PAGE} has no '{}'", begin.trim())) + begin.len();
        let to = from + page[from..].find("<!-- end -->").unwrap_or_else(|| panic!("{PAGE}: no end after {program}"));
        format!("{}{}{}", &page[..from], table(keys), &page[to..])
    })
}

#[test]
fn the_page_lists_every_setting_as_the_programs_have_it() {
    let page = text(PAGE);
    let wanted = renewed(&page);
    if std::env::var_os("RENEW").is_some() {
        std::fs::write(project(PAGE), &wanted).expect("the page can be written");
    } else {
        assert!(page == wanted, "{PAGE} is not up to date; run: RENEW=1 cargo test -p tests --test deploy configuration");
    }
}

#[test]
fn every_table_belongs_to_a_program() {
    let marks = text(PAGE).matches("<!-- settings: ").count();
    assert_eq!(marks, programs().len());
}
