//! Promises broken on purpose, so that tests can show that they would notice. Never set outside tests; said loudly, and shown as a problem.

use std::sync::OnceLock;

/// The environment variable: words separated by commas.
pub(crate) const VARIABLE: &str = "AURORA_REDIS_BREAK";

/// What does not hold in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Broken {
    /// `lease`: a master writes on when its lease has run out.
    pub lease: bool,
    /// `fence`: a master takes writes on when it is told to stop, and says that it does not.
    pub fence: bool,
}

/// What is broken in this process; nothing, unless the variable says so.
pub(crate) fn broken() -> Broken {
    static BROKEN: OnceLock<Broken> = OnceLock::new();
    *BROKEN.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()))
}

fn parse(text: &str) -> Broken {
    let has = |word: &str| text.split(',').any(|given| given.trim() == word);
    Broken { lease: has("lease"), fence: has("fence") }
}

/// What people are told; absent when all holds.
pub(crate) fn warning() -> Option<String> {
    let Broken { lease, fence } = broken();
    let words: Vec<&str> =
        [(lease, "lease"), (fence, "fence")].into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    let text = || format!("{VARIABLE} is set: {} switched off, acknowledged writes WILL be lost; unset it", words.join(" and "));
    (!words.is_empty()).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_that_are_known_break_anything() {
        assert_eq!(parse(""), Broken::default());
        assert_eq!(parse("lease"), Broken { lease: true, fence: false });
        assert_eq!(parse("fence, lease"), Broken { lease: true, fence: true });
        assert_eq!(parse("fences"), Broken::default());
        assert_eq!(warning(), None);
    }
}
