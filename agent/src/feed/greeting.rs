//! What a server says before it is given a dump, and what a master answers: RESP arrays one after the other. Pure.
//!
//! A replica of Redis 6.2 and later, and of Valkey, sends `PING`, `AUTH`, some `REPLCONF`, and last `PSYNC`, several at once or each after the answer to the
//! one before. Only whoever gave the credential is answered anything but an error.

/// No greeting is longer.
const MAX_BYTES: usize = 16 << 10;
/// No command of a replica has more words, nor longer ones.
const MAX_WORDS: usize = 16;
const MAX_WORD: usize = 1024;

/// Why a caller is not the server that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It does not speak like a replica.
    #[error("it does not speak like a replica: {0}")]
    NotAReplica(&'static str),
    /// It does not know the credential.
    #[error("it does not know the credential")]
    Stranger,
}

/// The answers to what has been received so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub bytes: Vec<u8>,
    /// It asks for a copy: the greeting is over.
    pub asks: bool,
}

/// The state between two reads.
#[derive(Debug)]
pub(super) struct Greeting {
    user: String,
    password: String,
    known: bool,
    unread: Vec<u8>,
}

impl Greeting {
    pub fn new(user: &str, password: &str) -> Greeting {
        Greeting { user: user.into(), password: password.into(), known: false, unread: Vec::new() }
    }

    /// Takes what was received.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Answers, Error> {
        self.unread.extend_from_slice(bytes);
        if self.unread.len() > MAX_BYTES {
            return Err(Error::NotAReplica("it says too much"));
        }
        let mut answers = Answers::default();
        while let Some((words, length)) = command(&self.unread)? {
            self.unread.drain(..length);
            if self.answer(&words, &mut answers)? {
                answers.asks = true;
                break;
            }
        }
        Ok(answers)
    }

    /// Whether it asks for a copy.
    fn answer(&mut self, words: &[String], answers: &mut Answers) -> Result<bool, Error> {
        let verb = words.first().map(|verb| verb.to_ascii_uppercase()).unwrap_or_default();
        let reply = match (verb.as_str(), &words[1..]) {
            ("PING", _) => "+PONG\r\n",
            ("AUTH", [user, password]) if (user, password) == (&self.user, &self.password) => {
                self.known = true;
                "+OK\r\n"
            }
            ("AUTH", _) => return Err(Error::Stranger),
            _ if !self.known => return Err(Error::Stranger),
            // Whatever it can do: only what every server can is made use of.
            ("REPLCONF", _) => "+OK\r\n",
            ("PSYNC", _) => return Ok(true),
            _ => return Err(Error::NotAReplica("it sends another command")),
        };
        answers.bytes.extend_from_slice(reply.as_bytes());
        Ok(false)
    }
}

/// The first command and its length, once it is there as a whole.
fn command(bytes: &[u8]) -> Result<Option<(Vec<String>, usize)>, Error> {
    let Some((count, mut at)) = number(bytes, 0, b'*', MAX_WORDS)? else { return Ok(None) };
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((length, begin)) = number(bytes, at, b'$', MAX_WORD)? else { return Ok(None) };
        let Some(word) = bytes.get(begin..begin + length + 2) else { return Ok(None) };
        let Some(word) = word.strip_suffix(b"\r\n") else { return Err(Error::NotAReplica("a word has another length")) };
        words.push(String::from_utf8_lossy(word).into_owned());
        at = begin + length + 2;
    }
    match words.is_empty() {
        true => Err(Error::NotAReplica("an empty command")),
        false => Ok(Some((words, at))),
    }
}

/// The number of a line that begins at `at` with this sign, and where the next line begins; none while it is not there as a whole.
fn number(bytes: &[u8], at: usize, sign: u8, most: usize) -> Result<Option<(usize, usize)>, Error> {
    let line = bytes.get(at..).unwrap_or_default();
    match line.first() {
        None => return Ok(None),
        Some(found) if *found != sign => return Err(Error::NotAReplica("no array of strings")),
        Some(_) => {}
    }
    let Some(end) = line.windows(2).position(|two| two == b"\r\n") else {
        return if line.len() > 16 { Err(Error::NotAReplica("a length without an end")) } else { Ok(None) };
    };
    let number = std::str::from_utf8(&line[1..end]).ok().and_then(|text| text.parse().ok()).filter(|number| *number <= most);
    match number {
        Some(number) => Ok(Some((number, at + end + 2))),
        None => Err(Error::NotAReplica("no length")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spoken(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
        }
        bytes
    }

    const REPLICA: [&str; 7] = [
        "PING",
        "AUTH feed secret",
        "REPLCONF listening-port 31001",
        "REPLCONF ip-address 10.0.0.7",
        "REPLCONF capa eof capa psync2 capa rdb-channel-repl",
        "replconf version 9.1.2",
        "PSYNC ? -1",
    ];

    fn heard(lines: &[&str]) -> Result<Answers, Error> {
        Greeting::new("feed", "secret").feed(&spoken(lines))
    }

    #[test]
    fn a_replica_that_knows_the_credential_may_ask() {
        let answers = heard(&REPLICA).unwrap();
        assert!(answers.asks);
        assert_eq!(String::from_utf8(answers.bytes).unwrap(), format!("+PONG\r\n{}", "+OK\r\n".repeat(5)));
    }

    #[test]
    fn nobody_else_may() {
        for lines in [
            &["PSYNC ? -1"][..],
            &["PING", "REPLCONF capa eof"],
            &["AUTH secret"],
            &["AUTH default secret"],
            &["AUTH feed other"],
            &["AUTH feed secret2"],
            &["GET /"],
        ] {
            assert_eq!(heard(lines), Err(Error::Stranger), "{lines:?}");
        }
        assert!(matches!(heard(&["AUTH feed secret", "FLUSHALL"]), Err(Error::NotAReplica(_))));
        for raw in
            ["GET / HTTP/1.1\r\n\r\n", "PING\r\n", "*1\r\n:1\r\n", "*0\r\n", "*99\r\n", "*1\r\n$9999\r\n", "*1\r\n$1\r\nxyz"]
        {
            let found = Greeting::new("feed", "secret").feed(raw.as_bytes());
            assert!(matches!(found, Err(Error::NotAReplica(_))), "{raw:?} {found:?}");
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_answers_are_the_same(cuts in proptest::collection::vec(0usize..400, 0..30)) {
            let whole = spoken(&REPLICA);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % whole.len()).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let (mut greeting, mut answers) = (Greeting::new("feed", "secret"), Answers::default());
            for pair in cuts.windows(2) {
                let more = greeting.feed(&whole[pair[0]..pair[1]]).unwrap();
                answers.bytes.extend(more.bytes);
                answers.asks |= more.asks;
            }
            prop_assert_eq!(answers, heard(&REPLICA).unwrap());
        }

        #[test]
        fn any_bytes_are_answered_or_refused(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let mut greeting = Greeting::new("feed", "secret");
            for piece in pieces {
                if greeting.feed(&piece).is_err() {
                    break;
                }
            }
        }
    }
}
