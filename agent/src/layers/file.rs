//! The TOML layer: walks a file and hands what it holds to [`Layers`]; names keys that nobody declared.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Key, Kind, Layers, Origin, Raw};

pub(super) fn read(layers: &mut Layers, path: &Path, text: &str) {
    let file = File { path, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = file.line(error.span().map_or(0, |span| span.start));
        layers.mistakes.push(format!("{}:{line}: not TOML: {}", path.display(), error.message()));
    }
    file.walk(layers, "", table.get_ref());
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
    }

    fn walk(&self, layers: &mut Layers, prefix: &str, table: &DeTable<'_>) {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in entries {
            let dotted = format!("{prefix}{}", name.get_ref());
            let from = Origin::File(self.path.into(), self.line(name.span().start));
            let declared = layers.keys.iter().find(|key| key.name == dotted);
            let below = format!("{dotted}.");
            match (declared, value.get_ref()) {
                (Some(key), DeValue::Table(entries)) if key.kind == Kind::Table => self.entries(layers, key, entries),
                (Some(key), value) if key.kind != Kind::Table => self.value(layers, key, value, from),
                (Some(_), _) => {
                    layers.mistakes.push(format!("{from}: {dotted}: allowed is a table, [{dotted}] with name = value below"))
                }
                (None, DeValue::Table(inner)) if layers.keys.iter().any(|key| key.name.starts_with(&below)) => {
                    self.walk(layers, &below, inner)
                }
                (None, _) => {
                    let mut here: Vec<&str> =
                        layers.keys.iter().filter_map(|key| key.name.strip_prefix(prefix)?.split('.').next()).collect();
                    here.dedup();
                    layers.mistakes.push(format!("{from}: {dotted}: no such setting; known here: {}", here.join(", ")));
                }
            }
        }
    }

    fn value(&self, layers: &mut Layers, key: &Key, value: &DeValue<'_>, from: Origin) {
        let items = match value {
            DeValue::Array(array) if key.kind == Kind::List => array.iter().map(scalar).collect(),
            DeValue::Table(_) | DeValue::Array(_) => None,
            other => text_of(other).map(|text| vec![text]),
        };
        match items {
            Some(items) => layers.put(declared_name(layers, key), Raw { items, from }),
            None => layers.mistakes.push(format!("{from}: {}: is {}; allowed is {}", key.name, value.type_str(), key.hint)),
        }
    }

    fn entries(&self, layers: &mut Layers, key: &Key, entries: &DeTable<'_>) {
        for (name, value) in entries {
            let from = Origin::File(self.path.into(), self.line(name.span().start));
            match scalar(value) {
                Some(text) => layers.put_in_table(declared_name(layers, key), name.get_ref(), Raw { items: vec![text], from }),
                None => layers.mistakes.push(format!(
                    "{from}: {}.{}: is {}; allowed is a text, a number, true or false",
                    key.name,
                    name.get_ref(),
                    value.get_ref().type_str()
                )),
            }
        }
    }
}

fn declared_name(layers: &Layers, key: &Key) -> &'static str {
    layers.key(key.name).name
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Option<String> {
    text_of(value.get_ref())
}

/// The text of a value that is neither array nor table, as the other layers would write it.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Datetime(when) => Some(when.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}
