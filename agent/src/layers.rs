//! Configuration in layers, the one mechanism of both daemons and of the command line: what a program understands is a table
//! of [`Key`]s; a value comes from a TOML file, over it the environment (`AURORA_REDIS_…`), over that the flags.
//!
//! Each program's `config.rs` declares its keys, adds them to its clap command with [`flags`], reads with the typed getters of
//! [`Layers`] and ends with [`Layers::finish`]. Invariant: no mistake is reported alone: unknown keys in the file, values that do not
//! parse and values that do not fit together are all collected, each with where it stands, its value and what is allowed, so that
//! `main` prints them at once and exits 2 before anything starts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

mod file;
mod units;
pub mod values;

pub use units::{parse_bytes, parse_duration, show_duration};

/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "AURORA_REDIS_";

/// One thing that can be set. The flag of `failover.cooldown` is `--failover-cooldown`, its variable `AURORA_REDIS_FAILOVER_COOLDOWN`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name in the file, lower case: `[failover]` `cooldown = "60s"`.
    pub name: &'static str,
    /// Placeholder of the value in help texts, e.g. `DURATION`.
    pub hint: &'static str,
    /// One sentence for help texts and documentation.
    pub help: &'static str,
    /// Text of the default; absent when the key has none.
    pub default: Option<&'static str>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Value,
    Switch,
    List,
    Table,
}

impl Key {
    /// A key with one value.
    pub const fn value(name: &'static str, hint: &'static str, help: &'static str) -> Key {
        Key { name, hint, help, default: None, kind: Kind::Value }
    }
    /// A key that is on or off; off by default. The bare flag turns it on.
    pub const fn switch(name: &'static str, help: &'static str) -> Key {
        Key { name, hint: "true|false", help, default: Some("false"), kind: Kind::Switch }
    }
    /// A key with several values: an array in the file, separated by commas elsewhere.
    pub const fn list(name: &'static str, hint: &'static str, help: &'static str) -> Key {
        Key { name, hint, help, default: None, kind: Kind::List }
    }
    /// A free-form table such as `[redis.config]`: any name with one value each. As a flag `--redis-config NAME=VALUE`, repeated; in
    /// the environment `NAME=VALUE` separated by `;`. Layers add to each other name by name.
    pub const fn table(name: &'static str, help: &'static str) -> Key {
        Key { name, hint: "NAME=VALUE", help, default: None, kind: Kind::Table }
    }
    /// The same key with a default, in the syntax of its values.
    pub const fn or(mut self, default: &'static str) -> Key {
        self.default = Some(default);
        self
    }
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.replace(['.', '-'], "_").to_uppercase())
    }
    /// The long flag that sets it, without the dashes.
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Origin {
    /// In a file, at this line (from 1).
    File(PathBuf, usize),
    /// In this environment variable.
    Variable(String),
    /// In this flag, without the dashes.
    Flag(String),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

/// Every mistake found, at least one. Display: one line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

/// The values in force with where each comes from, fit to be printed and served: passwords in URIs are removed, and no key holds
/// a secret itself (they name files).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Effective(pub BTreeMap<String, Setting>);

/// One line of [`Effective`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its text.
    pub value: String,
    /// Where it comes from.
    pub from: Origin,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, Setting { value, from }) in &self.0 {
            writeln!(f, "{key} = {value:?}  # {from}")?;
        }
        Ok(())
    }
}

/// A value as it was written: one item, or several for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Raw {
    items: Vec<String>,
    from: Origin,
}

impl Raw {
    fn text(&self) -> String {
        self.items.join(",")
    }
}

/// The layers laid over each other, and the mistakes found so far.
#[derive(Debug)]
pub struct Layers {
    keys: &'static [Key],
    values: BTreeMap<&'static str, Raw>,
    tables: BTreeMap<&'static str, BTreeMap<String, Raw>>,
    mistakes: Vec<String>,
    effective: Effective,
}

/// Adds `--config FILE` and a flag for each key to a clap command. They work after a subcommand as well.
pub fn flags(keys: &[Key], command: clap::Command) -> clap::Command {
    let config = clap::Arg::new("config")
        .long("config")
        .value_name("FILE")
        .global(true)
        .help_heading("Settings")
        .help("TOML file with any of the settings below");
    keys.iter().fold(command.arg(config), |command, key| {
        let mut help = format!("{} [env: {}]", key.help, key.variable());
        if let (Some(default), Kind::Value | Kind::List) = (key.default, key.kind) {
            help += &format!(" [default: {default}]");
        }
        let arg = clap::Arg::new(key.name)
            .long(key.flag())
            .value_name(key.hint)
            .global(true)
            .help_heading("Settings")
            .help(help)
            .allow_hyphen_values(true);
        command.arg(match key.kind {
            Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::Table => arg.action(clap::ArgAction::Append),
            Kind::Value | Kind::List => arg,
        })
    })
}

impl Layers {
    /// Reads all layers. The file is the one of `--config` or `AURORA_REDIS_CONFIG`, which must exist; else `default_file`, which may
    /// be missing.
    pub fn read(keys: &'static [Key], matches: &clap::ArgMatches, default_file: Option<&Path>) -> Layers {
        let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let mut layers = Layers::new(keys);
        let named = matches.get_one::<String>("config").cloned().or_else(|| variable(&format!("{ENV_PREFIX}CONFIG")));
        match (named, default_file) {
            (Some(path), _) => layers.read_file(Path::new(&path)),
            (None, Some(path)) if path.exists() => layers.read_file(path),
            _ => {}
        }
        layers.environment(variable);
        for key in keys {
            for value in matches.get_many::<String>(key.name).into_iter().flatten() {
                layers.set(key, value, Origin::Flag(key.flag()));
            }
        }
        layers
    }

    /// No layer yet; all keys at their defaults.
    pub fn new(keys: &'static [Key]) -> Layers {
        let (values, tables) = Default::default();
        Layers { keys, values, tables, mistakes: Vec::new(), effective: Effective::default() }
    }

    /// Lays a TOML file over what is there.
    pub fn read_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.file(path, &text),
            Err(error) => self.mistakes.push(format!("{}: cannot be read: {error}", path.display())),
        }
    }

    /// Lays the text of a TOML file over what is there; `path` is only named in mistakes.
    pub fn file(&mut self, path: &Path, text: &str) {
        file::read(self, path, text);
    }

    /// Lays environment variables over what is there. Variables of no key of ours are left alone: other programs share the prefix.
    pub fn environment(&mut self, variable: impl Fn(&str) -> Option<String>) {
        for key in self.keys {
            let name = key.variable();
            if let Some(value) = variable(&name) {
                self.set(key, &value, Origin::Variable(name));
            }
        }
    }

    /// Lays one text (from the environment or a flag) over what is there.
    pub fn set(&mut self, key: &Key, value: &str, from: Origin) {
        match key.kind {
            Kind::Value | Kind::Switch => self.put(key.name, Raw { items: vec![value.into()], from }),
            Kind::List => {
                let items = value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect();
                self.put(key.name, Raw { items, from });
            }
            Kind::Table => {
                let pairs = if matches!(from, Origin::Flag(_)) { vec![value] } else { value.split(';').collect() };
                for pair in pairs.into_iter().filter(|pair| !pair.trim().is_empty()) {
                    match pair.split_once('=') {
                        Some((name, value)) => {
                            self.put_in_table(key.name, name.trim(), Raw { items: vec![value.trim().into()], from: from.clone() })
                        }
                        None => self.mistakes.push(format!("{from}: {} = {pair:?}: allowed is NAME=VALUE", key.name)),
                    }
                }
            }
        }
    }

    /// Gives a key that nobody has set a value from elsewhere, above its default only.
    pub fn lay_under(&mut self, name: &str, value: &str, from: Origin) {
        let key = self.key(name);
        if !self.is_set(name) {
            self.set(key, value, from);
        }
    }

    fn put(&mut self, key: &'static str, raw: Raw) {
        self.values.insert(key, raw);
    }

    fn put_in_table(&mut self, key: &'static str, name: &str, raw: Raw) {
        self.tables.entry(key).or_default().insert(name.into(), raw);
    }

    fn key(&self, name: &str) -> &'static Key {
        self.keys
            .iter()
            .find(|key| key.name == name)
            .unwrap_or_else(|| panic!("{name} is not declared: add it to the table of keys"))
    }

    /// The value as written, else the default; noted as in force.
    fn raw(&mut self, name: &str) -> Option<Raw> {
        let key = self.key(name);
        let default = || key.default.map(|text| Raw { items: vec![text.into()], from: Origin::Default });
        let raw = self.values.get(key.name).cloned().or_else(default)?;
        let value = raw.items.iter().map(|item| without_password(item)).collect::<Vec<_>>().join(",");
        self.effective.0.insert(name.into(), Setting { value, from: raw.from.clone() });
        Some(raw)
    }

    /// The value parsed; absent when it is not set and has no default, or after a mistake (an empty value is one). `allowed`
    /// says in words what would be right.
    pub fn optional<T, E: fmt::Display>(
        &mut self,
        name: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let raw = self.raw(name)?;
        let text = raw.text();
        let parsed =
            if text.is_empty() { Err("it is empty".to_owned()) } else { parse(&text).map_err(|error| error.to_string()) };
        parsed.map_err(|error| self.wrong(&raw, name, &format!("{error}; allowed is {allowed}"))).ok()
    }

    /// The value parsed; it must be set. After a mistake a placeholder, never used since [`Layers::finish`] fails then.
    pub fn required<T: Default, E: fmt::Display>(
        &mut self,
        name: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> T {
        let key = self.key(name);
        if !self.values.contains_key(name) && key.default.is_none() {
            let (flag, variable) = (key.flag(), key.variable());
            self.mistakes
                .push(format!("{name}: not set; allowed is {allowed}; set it in the file, by --{flag} or by {variable}"));
            return T::default();
        }
        self.optional(name, allowed, parse).unwrap_or_default()
    }

    /// Any text that is not empty; absent when not set.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.optional(name, "any text", |text| Ok::<_, String>(text.to_owned()))
    }

    /// A path of a file or directory; absent when not set.
    pub fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// Whether a switch is on.
    pub fn is_on(&mut self, name: &str) -> bool {
        self.required(name, "true or false", |text| text.parse::<bool>())
    }

    /// A whole number within `range`; the key must be set or have a default.
    pub fn number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> u64 {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.required(name, &allowed, |text| in_range(text, &range))
    }

    /// A whole number within `range`, absent when not set.
    pub fn optional_number(&mut self, name: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        self.optional(name, &allowed, |text| in_range(text, &range))
    }

    /// A TCP port, absent when not set.
    pub fn port(&mut self, name: &str) -> Option<u16> {
        self.optional_number(name, 1..=65535).map(|port| port as u16)
    }

    /// A time longer than zero with a unit, e.g. `250ms`, `2s`, `10m`, `1h`; the key must be set or have a default.
    pub fn duration(&mut self, name: &str) -> Duration {
        self.required(name, "a time above 0 with its unit: ms, s, m or h, such as 250ms", |text| match parse_duration(text) {
            Ok(Duration::ZERO) => Err("it is zero".to_owned()),
            other => other,
        })
    }

    /// A size in bytes, e.g. `64mb` or `1048576`; the key must be set or have a default.
    pub fn bytes(&mut self, name: &str) -> u64 {
        self.required(name, "a size in bytes, or with a unit: kb, mb, gb (of 1024)", parse_bytes)
    }

    /// The items of a list; empty when not set.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        self.raw(name).map(|raw| raw.items).unwrap_or_default()
    }

    /// The entries of a free-form table.
    pub fn table(&mut self, name: &str) -> BTreeMap<String, String> {
        let entries = self.tables.get(self.key(name).name).cloned().unwrap_or_default();
        for (entry, raw) in &entries {
            self.effective
                .0
                .insert(format!("{name}.{entry}"), Setting { value: without_password(&raw.text()), from: raw.from.clone() });
        }
        entries.into_iter().map(|(entry, raw)| (entry, raw.text())).collect()
    }

    /// Notes that the value of `name` is wrong for a reason that only the whole shows, e.g. `must be longer than probe.every (250ms)`. An
    /// entry of a free-form table is named like `redis.config.port`.
    pub fn reject(&mut self, name: &str, why: &str) {
        let entry = || self.tables.iter().find_map(|(table, entries)| entries.get(name.strip_prefix(table)?.strip_prefix('.')?));
        let default = || self.keys.iter().find(|key| key.name == name).and_then(|key| key.default);
        match self.values.get(name).or_else(entry).cloned() {
            Some(raw) => self.wrong(&raw, name, why),
            None => self.mistakes.push(match default() {
                Some(default) => format!("default: {name} = {default:?}: {why}"),
                None => format!("{name}: {why}"),
            }),
        }
    }

    /// Whether somebody set this key (a default is nobody).
    pub fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name) || self.tables.contains_key(name)
    }

    fn wrong(&mut self, raw: &Raw, name: &str, why: &str) {
        self.mistakes.push(format!("{}: {name} = {:?}: {why}", raw.from, without_password(&raw.text())));
    }

    /// The values in force, or every mistake.
    pub fn finish(self) -> Result<Effective, Mistakes> {
        if self.mistakes.is_empty() { Ok(self.effective) } else { Err(Mistakes(self.mistakes)) }
    }
}

fn in_range(text: &str, range: &std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number: u64 = text.trim().parse().map_err(|_| "it is not such a number".to_owned())?;
    if range.contains(&number) { Ok(number) } else { Err("it is out of range".to_owned()) }
}

/// `scheme://user:password@host` without the password.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.into();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}{path}", user.split(':').next().unwrap_or_default()),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests;
