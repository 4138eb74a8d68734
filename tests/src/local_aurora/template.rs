//! Thermos' templates (`{{thermos.ports[redis]}}`, `{{mesos.instance}}`, ...): filled in with a task's values. Pure.
//!
//! Used by [`super::thermos`] when a job is checked and when a task starts. Text between double braces that is no
//! reference (`{{ 1 + 1 }}`, `${{x}`) is left as it is, as the template language of the real client does.

use std::collections::BTreeMap;

/// What the references of one task stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binding {
    /// `{{thermos.ports[NAME]}}`.
    pub ports: BTreeMap<String, u16>,
    /// `{{thermos.task_id}}`.
    pub task_id: String,
    /// `{{thermos.user}}`: the role.
    pub user: String,
    /// `{{mesos.instance}}`.
    pub instance: i32,
    /// `{{mesos.hostname}}`: address of the host.
    pub hostname: String,
}

impl Binding {
    fn value(&self, reference: &str) -> Option<String> {
        match reference {
            "thermos.task_id" => Some(self.task_id.clone()),
            "thermos.user" => Some(self.user.clone()),
            "mesos.instance" => Some(self.instance.to_string()),
            "mesos.hostname" => Some(self.hostname.clone()),
            other => {
                let name = other.strip_prefix("thermos.ports[")?.strip_suffix(']')?;
                self.ports.get(name).map(u16::to_string)
            }
        }
    }
}

/// Fills in every reference of `text`. The error is the first reference that has no value.
pub fn fill(text: &str, binding: &Binding) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, tail) = rest.split_at(start);
        out.push_str(before);
        let inner = &tail[2..];
        match inner.find("}}").map(|end| &inner[..end]) {
            Some(reference) if is_reference(reference) => {
                let value = binding.value(reference);
                out.push_str(&value.ok_or_else(|| reference.to_owned())?);
                rest = &inner[reference.len() + 2..];
            }
            _ => {
                // Step over one brace only: "{{{x}}}" holds a reference after its first brace.
                out.push('{');
                rest = &tail[1..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_reference(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.[]".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Binding {
        Binding {
            ports: BTreeMap::from([("redis".to_owned(), 31001), ("http-admin".to_owned(), 31002)]),
            task_id: "redis-prod-cache-0-x".to_owned(),
            user: "redis".to_owned(),
            instance: 3,
            hostname: "127.0.0.2".to_owned(),
        }
    }

    #[test]
    fn fills_in_every_reference() {
        let text = "a --p {{thermos.ports[redis]}},{{thermos.ports[http-admin]}} -i {{mesos.instance}} \
                    {{mesos.hostname}}/{{thermos.task_id}}/{{thermos.user}}";
        assert_eq!(fill(text, &binding()).unwrap(), "a --p 31001,31002 -i 3 127.0.0.2/redis-prod-cache-0-x/redis");
    }

    #[test]
    fn names_the_reference_without_a_value() {
        assert_eq!(fill("x {{thermos.ports[nope]}}", &binding()).unwrap_err(), "thermos.ports[nope]");
        assert_eq!(fill("{{cluster}}", &binding()).unwrap_err(), "cluster");
    }

    #[test]
    fn leaves_other_braces_alone() {
        for text in ["${A} {{ 1 }} {x} {{", "awk '{{print $1}}'", "}} {{}}"] {
            assert_eq!(fill(text, &binding()).unwrap(), text);
        }
        assert_eq!(fill("{{{mesos.instance}}}", &binding()).unwrap(), "{3}");
    }
}
