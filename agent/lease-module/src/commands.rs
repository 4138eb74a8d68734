//! What the server's own list says of its commands: which of them may change data, which only read. Pure.
//!
//! The list is the server's, read when the module is loaded: so it fits its version, and the modules loaded before.

/// Longest name that is looked up; a longer one is unknown.
const LONGEST: usize = 64;

/// Commands that change data although the server does not list them as writes. Most may have to be replicated; `CLIENT PAUSE WRITE` holds them
/// back too. What that has held back does not pass by the filter again when it is let go (since 7.2), so nothing is let go beyond the lease.
const ALSO_WRITE: [&[u8]; 7] = [b"eval", b"evalsha", b"fcall", b"pfcount", b"publish", b"spublish", b"client|unpause"];

/// What a command may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Neither reads nor changes data: administration, handshakes, health.
    Free,
    /// Reads.
    Read,
    /// May change data, now or by what it runs: writes, scripts, functions.
    Write,
    /// Runs what was queued.
    Exec,
    /// Its first argument says more.
    Container,
}

/// All commands of the server by name, subcommands as `name|subcommand`, sorted.
#[derive(Debug, Default)]
pub struct Commands {
    all: Vec<(Box<[u8]>, Kind)>,
}

impl Commands {
    /// Adds a command with the flags and categories that the server gives it.
    pub fn add<'a>(&mut self, name: &[u8], words: impl Iterator<Item = &'a [u8]>) {
        let name = name.to_ascii_lowercase().into_boxed_slice();
        let kind = match &*name {
            b"exec" => Kind::Exec,
            name if ALSO_WRITE.contains(&name) => Kind::Write,
            _ => of(words),
        };
        self.all.push((name, kind));
    }

    /// Says of a command that its subcommands, added by themselves, count.
    pub fn add_container(&mut self, name: &[u8]) {
        self.all.push((name.to_ascii_lowercase().into_boxed_slice(), Kind::Container));
    }

    /// Ends the list with what no server lists: QUIT before 7.2, and the agent's own command.
    pub fn finish(mut self, own: &[u8]) -> Commands {
        self.add(b"quit", std::iter::empty());
        self.add(own, std::iter::empty());
        self.all.sort();
        self
    }

    /// Whether the list is what a server could have.
    pub fn is_plausible(&self) -> bool {
        [(&b"set"[..], Kind::Write), (b"eval", Kind::Write), (b"exec", Kind::Exec), (b"get", Kind::Read), (b"info", Kind::Free)]
            .iter()
            .all(|(name, kind)| self.kind(name, b"") == *kind)
    }

    /// What a command with this first argument may do, in any case of letters. What is not known may change data.
    pub fn kind(&self, name: &[u8], first: &[u8]) -> Kind {
        match self.look_up(&[name]) {
            // Libraries try newer parts of CLIENT when they connect: the server knows best that it lacks them.
            Some(Kind::Container) if name.eq_ignore_ascii_case(b"client") => {
                self.look_up(&[name, b"|", first]).unwrap_or(Kind::Free)
            }
            Some(Kind::Container) => self.look_up(&[name, b"|", first]).unwrap_or(Kind::Write),
            known => known.unwrap_or(Kind::Write),
        }
    }

    fn look_up(&self, parts: &[&[u8]]) -> Option<Kind> {
        let mut lower = [0; LONGEST];
        let mut length = 0usize;
        for part in parts {
            let end = length.checked_add(part.len())?;
            lower.get_mut(length..end)?.copy_from_slice(part);
            length = end;
        }
        let lower = lower.get_mut(..length)?;
        lower.make_ascii_lowercase();
        let found = self.all.binary_search_by(|(known, _)| known.as_ref().cmp(lower));
        found.ok().and_then(|at| self.all.get(at)).map(|(_, kind)| *kind)
    }
}

fn of<'a>(words: impl Iterator<Item = &'a [u8]>) -> Kind {
    let (mut reads, mut writes, mut scripting) = (false, false, false);
    for word in words {
        reads |= word == b"readonly";
        writes |= word == b"write";
        scripting |= word == b"@scripting";
    }
    match (writes, reads) {
        (true, _) => Kind::Write,
        (false, true) => Kind::Read,
        (false, false) if scripting => Kind::Write,
        (false, false) => Kind::Free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(list: &[(&str, &str)]) -> Commands {
        let mut commands = Commands::default();
        for (name, words) in list {
            match *words {
                "container" => commands.add_container(name.as_bytes()),
                words => commands.add(name.as_bytes(), words.split(' ').map(str::as_bytes)),
            }
        }
        commands.finish(b"own")
    }

    #[test]
    fn the_servers_words_say_what_a_command_may_do() {
        let known = commands(&[
            ("SET", "write denyoom"),
            ("eval", "noscript stale"),
            ("eval_ro", "noscript readonly @scripting"),
            ("script", "noscript @scripting"),
            ("exec", "noscript"),
            ("get", "readonly fast"),
            ("info", "loading stale"),
            ("function", "container"),
            ("function|kill", "noscript"),
            ("function|load", "write"),
            ("client", "container"),
            ("client|unpause", "noscript"),
            ("client|pause", "noscript"),
        ]);
        assert!(known.is_plausible());
        for (name, first, kind) in [
            ("sEt", "a", Kind::Write),
            ("EXEC", "", Kind::Exec),
            ("Eval_RO", "", Kind::Read),
            ("script", "load", Kind::Write),
            ("GET", "a", Kind::Read),
            ("info", "", Kind::Free),
            ("quit", "", Kind::Free),
            ("OWN", "", Kind::Free),
            ("function", "KILL", Kind::Free),
            ("FUNCTION", "Load", Kind::Write),
            ("function", "new", Kind::Write),
            ("Client", "UnPause", Kind::Write),
            ("client", "pause", Kind::Free),
            ("client", "of-later", Kind::Free),
        ] {
            assert_eq!(known.kind(name.as_bytes(), first.as_bytes()), kind, "{name} {first}");
        }
    }

    #[test]
    fn what_is_not_known_may_write() {
        let known = commands(&[("get", "readonly"), ("xgroup", "container")]);
        for name in [&b""[..], b"mystery", &[b'a'; 1000], b"\xff\0"] {
            assert_eq!((known.kind(name, b""), known.kind(b"xgroup", name)), (Kind::Write, Kind::Write));
        }
        assert!(!known.is_plausible());
    }
}
