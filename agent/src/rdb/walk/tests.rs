use proptest::prelude::*;

use super::*;
use crate::rdb::CRC_64;

/// Five keys in two databases.
const SMALL: &[u8] = include_bytes!("../../../testdata/small.rdb");
/// Every kind of value and encoding that these servers write, in databases 0 and 9.
const REDIS_7: &[u8] = include_bytes!("../../../testdata/kinds-redis-7.0.rdb");
const REDIS_8: &[u8] = include_bytes!("../../../testdata/kinds-redis-8.2.rdb");
const VALKEY_9: &[u8] = include_bytes!("../../../testdata/kinds-valkey-9.0.rdb");
const ALL: [&[u8]; 4] = [SMALL, REDIS_7, REDIS_8, VALKEY_9];

fn judge(bytes: &[u8]) -> Result<Walked, Flaw> {
    walk(bytes).expect("memory can be read")
}

/// A dump of these bytes between header and end mark, with a right checksum.
fn dump(header: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = [header.as_bytes(), body, &[opcode::END]].concat();
    bytes.extend(CRC_64.checksum(&bytes).to_le_bytes());
    bytes
}

fn content(header: &str, body: &[u8]) -> Result<Content, String> {
    judge(&dump(header, body)).map(|walked| walked.content).map_err(|flaw| flaw.to_string())
}

fn keys(keys: u64, expiring: u64) -> Keys {
    Keys { keys, expiring }
}

#[test]
fn every_kind_of_value_of_every_server_is_walked() {
    for (name, bytes) in [("Redis 7.0", REDIS_7), ("Redis 8.2", REDIS_8), ("Valkey 9.0", VALKEY_9)] {
        let walked = judge(bytes).unwrap_or_else(|flaw| panic!("{name}: {flaw}"));
        assert_eq!(walked.content.databases, [(0, keys(23, 1)), (9, keys(2, 1))].into(), "{name}");
        assert_eq!((walked.content.functions, walked.content.modules.len()), (1, 0), "{name}");
        assert_eq!((walked.checked.rdb.bytes, walked.content.keys()), (bytes.len() as u64, 25), "{name}");
    }
    assert_eq!(judge(SMALL).unwrap().content.keys(), 5);
}

#[test]
fn a_walk_says_of_the_file_what_the_check_says() {
    for bytes in ALL {
        let mut digest = Digest::default();
        digest.update(bytes);
        let (sums, rdb) = digest.finish();
        assert_eq!(judge(bytes).unwrap().checked, Checked { sums, rdb: rdb.unwrap() });
    }
}

#[test]
fn every_truncation_is_told_as_one() {
    for bytes in ALL {
        for length in 0..bytes.len() {
            let flaw = judge(&bytes[..length]).unwrap_err();
            let told = matches!(flaw, Flaw::Truncated { offset, .. } if offset == length as u64)
                || (length < 18 && matches!(flaw, Flaw::Frame(Error::TooShort { .. })));
            assert!(told, "cut to {length}: {flaw}");
        }
    }
}

#[test]
fn every_changed_byte_is_refused() {
    for bytes in ALL {
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] ^= change;
                assert!(judge(&changed).is_err(), "byte {at} of {}", bytes.len());
            }
        }
    }
}

#[test]
fn a_dump_without_checksum_is_judged_by_its_structure() {
    let mut bytes = REDIS_7.to_vec();
    let end = bytes.len() - TRAILER_BYTES;
    bytes[end..].fill(0);
    assert!(!judge(&bytes).unwrap().checked.rdb.checksummed);
    // The opcode of the second database.
    let at = bytes.windows(4).position(|w| w == [opcode::SELECT, 9, opcode::RESIZE, 2]).unwrap();
    bytes[at] = 0xf0;
    let text = judge(&bytes).unwrap_err().to_string();
    assert!(text.contains("neither an opcode nor a kind of value") && text.contains("does not vouch for it: damaged"), "{text}");
}

#[test]
fn what_follows_the_end_is_told() {
    let flaw = judge(&[REDIS_7, b"\r\n"].concat()).unwrap_err();
    assert_eq!(flaw, Flaw::Trailing { offset: REDIS_7.len() as u64, bytes: 2 });
}

#[test]
fn newer_formats_are_refused_as_such_unless_they_are_damaged() {
    let newer = dump("REDIS0013", b"");
    let flaw = judge(&newer).unwrap_err();
    assert_eq!(flaw, Flaw::Newer { header: Header::Redis(13), newest: Header::Redis(12) });
    assert_eq!(flaw.offset(), None);
    let valkey = dump("VALKEY081", b"");
    assert!(matches!(judge(&valkey), Err(Flaw::Newer { newest: Header::Valkey(80), .. })));
    let damaged = [b"REDIS0040", &SMALL[9..]].concat();
    assert!(matches!(judge(&damaged), Err(Flaw::Frame(Error::Checksum { .. }))));
}

#[test]
fn a_dump_that_is_to_be_used_passes_by_its_frame_alone_only_in_a_newer_format() {
    let accept = |bytes: &[u8]| check(bytes).expect("memory can be read");
    let known = |body: &[u8]| accept(&dump("REDIS0012", body));
    let (checked, content) = accept(REDIS_7).unwrap();
    assert_eq!(Walked { checked, content: content.unwrap() }, judge(REDIS_7).unwrap());
    let (checked, content) = accept(&dump("REDIS0013", b"\xf0 what nobody knows")).unwrap();
    assert_eq!((checked.rdb.header, content), (Header::Redis(13), None));
    let flaw = known(b"\xf0 what nobody knows").unwrap_err();
    assert!(matches!(flaw, Flaw::Structure { checksum: true, .. }), "{flaw}");
    let mut damaged = dump("REDIS0013", b"12345");
    damaged[10] ^= 1;
    assert!(matches!(accept(&damaged), Err(Flaw::Frame(Error::Checksum { .. }))));
    assert!(matches!(accept(&dump("REDIS0013", b"")[..17]), Err(Flaw::Frame(Error::TooShort { .. }))));
}

/// What is asked for, or what the refusal says.
type Case<'a> = (&'a str, &'a str, &'a [u8], Result<u64, &'a str>);

#[test]
fn bodies_made_by_hand() {
    let aux = |value: &[u8]| [&[opcode::AUX, 1, b'a'], value].concat();
    let compressed = |plain: u8, bytes: &[u8]| aux(&[&[0xc3, bytes.len() as u8, plain], bytes].concat());
    let lzf = [
        compressed(6, &[2, b'a', b'b', b'c', 0x20, 2]),
        compressed(5, &[2, b'a', b'b', b'c', 0x20, 2]),
        compressed(6, &[2, b'a', b'b', b'c', 0x20, 3]),
        compressed(6, &[9, b'a', b'b', b'c', 0x20, 2]),
    ];
    let cases: [Case<'_>; 19] = [
        ("nothing", "REDIS0012", b"", Ok(0)),
        ("a compressed string", "REDIS0009", &lzf[0], Ok(0)),
        ("one of another length", "REDIS0009", &lzf[1], Err("not as long as it says")),
        ("one that refers to nothing", "REDIS0009", &lzf[2], Err("refers to bytes before its beginning")),
        ("one that is too short", "REDIS0009", &lzf[3], Err("goes beyond its end")),
        ("a length of no known encoding", "REDIS0009", &aux(&[0xf0]), Err("in an aux field: unknown length encoding")),
        ("a list without elements", "REDIS0009", b"\x01\x01k\x00", Err("in the list at key \"k\" of database 0: no element")),
        ("old scores", "REDIS0009", b"\x03\x01z\x04\x01a\x031.5\x01b\xfd\x01c\xfe\x01d\xff", Ok(1)),
        ("a kind that is none", "REDIS0009", b"\x08\x01k\x00", Err("neither an opcode nor a kind of value")),
        ("a module of before the release", "REDIS0009", b"\x06\x01k\x00", Err("neither an opcode nor a kind of value")),
        ("a database that is none", "REDIS0009", b"\xfe\x80\xff\xff\xff\xff", Err("no server has a database of that number")),
        ("fields that expire, Redis", "REDIS0012", b"\x18\x01h12345678\x01\x05\x01a\x011", Ok(1)),
        ("fields that expire, Valkey", "VALKEY080", b"\x16\x01h\x01\x01a\x01112345678", Ok(1)),
        ("slots being imported", "VALKEY080", b"\xf3\x03job\x02\x01\x02\x05\x06", Ok(0)),
        ("slots being imported, Redis", "REDIS0012", b"\xf3\x03job\x00", Err("neither an opcode")),
        ("slots, frequency, idle time", "REDIS0012", b"\xf4\x01\x02\x03\xf9\x07\xf8\x09\x00\x01k\x01v", Ok(1)),
        ("functions of a release candidate", "REDIS0010", b"\xf6\x01f", Err("no server loads")),
        ("a node of no known form", "REDIS0010", b"\x12\x01l\x01\x03\x01a", Err("neither plain nor packed")),
        ("a key that plays with the terminal", "REDIS0009", b"\x01\x04\x1b[2J\x00", Err("key \"\\x1b[2J\"")),
    ];
    for (name, header, body, expected) in cases {
        match (content(header, body), expected) {
            (Ok(found), Ok(keys)) => assert_eq!(found.keys(), keys, "{name}"),
            (Err(text), Err(part)) => assert!(text.contains(part), "{name}: {text}"),
            (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn modules_are_passed_over_and_named() {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let id = b"ReJSON-RL".iter().fold(0u64, |id, c| id << 6 | letters.iter().position(|l| l == c).unwrap() as u64);
    let id = [&[0x81][..], &(id << 10 | 3).to_be_bytes()].concat();
    let parts = b"\x01\x05\x02\x81\xff\xff\xff\xff\xff\xff\xff\xff\x031234\x0412345678\x05\x03abc\x00";
    let body = [&[opcode::MODULE_AUX], &id[..], b"\x02\x01", parts, b"\x07\x01m", &id, parts].concat();
    let found = content("REDIS0011", &body).unwrap();
    assert_eq!((found.keys(), found.modules), (1, ["ReJSON-RL".to_owned()].into()));
    let strange = [b"\x07\x01m", &id[..], b"\x06"].concat();
    assert!(content("REDIS0011", &strange).unwrap_err().contains("at key \"m\" of database 0: unknown part of a module's value"));
}

#[test]
fn a_huge_length_neither_takes_memory_nor_time() {
    let flaw = judge(&dump("REDIS0009", b"\x00\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff")).unwrap_err();
    assert!(matches!(flaw, Flaw::Truncated { .. }), "{flaw}");
    let flaw = judge(&dump("REDIS0009", b"\x01\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff")).unwrap_err();
    assert!(matches!(flaw, Flaw::Structure { .. } | Flaw::Truncated { .. }), "{flaw}");
}

#[test]
fn what_is_no_dump_is_not_read_to_its_end() {
    let flaw = walk(io::repeat(b'x')).unwrap().unwrap_err();
    assert!(matches!(flaw, Flaw::Frame(Error::NotADump { .. })), "{flaw}");
}

#[test]
fn a_source_that_fails_is_no_verdict() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    assert_eq!(walk((&SMALL[..100]).chain(Broken)).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Hands out a few bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300), valkey: bool) {
        let _ = content(if valkey { "VALKEY080" } else { "REDIS0012" }, &body);
    }

    /// Several edits of a real dump, sealed again: only the structure is left to judge by.
    #[test]
    fn edited_dumps_never_panic(
        which in 0..ALL.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let mut bytes = ALL[which][9..ALL[which].len() - 9].to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let header = std::str::from_utf8(&ALL[which][..9]).unwrap();
        let sealed = dump(header, &bytes);
        if let Ok(walked) = judge(&sealed) {
            prop_assert_eq!(walked.checked.sums.bytes, sealed.len() as u64);
        }
    }

    #[test]
    fn the_size_of_reads_makes_no_difference(which in 0..ALL.len(), step in 1usize..40, cut in any::<prop::sample::Index>()) {
        let bytes = &ALL[which][..cut.index(ALL[which].len() + 1)];
        prop_assert_eq!(walk(Drip(bytes, step)).unwrap(), judge(bytes));
    }
}
