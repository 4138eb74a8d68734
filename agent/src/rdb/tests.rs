use proptest::prelude::*;

use super::*;

/// A dump of Redis 7.0.15 that has had a replica: 5 keys in 2 databases.
const DUMP: &[u8] = include_bytes!("../../testdata/small.rdb");

fn check(bytes: &[u8]) -> Result<Rdb, Error> {
    let mut checker = Checker::default();
    checker.update(bytes);
    checker.finish()
}

/// The same bytes with a right checksum at the end.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - TRAILER_BYTES;
    let sum = CRC_64.checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn who_can_follow_whom_is_what_was_tried() {
    let versions = ["6.2.14", "7.0.15", "7.2.6", "7.4.1", "8.2.3", "valkey 8.1.8", "valkey 9.1.2"];
    let rows = [
        ("6.2.14", "yyyyyyy"),
        ("7.0.15", "nyyyyyy"),
        ("7.2.6", "nnyyyyy"),
        ("7.4.1", "nnnyynn"),
        ("8.2.3", "nnnyynn"),
        ("valkey 8.1.8", "nnyyyyy"),
        ("valkey 9.1.2", "nnyyyyy"),
    ];
    for (theirs, row) in rows {
        let found: String = versions.map(|ours| if can_follow(ours, theirs).is_ok() { 'y' } else { 'n' }).into_iter().collect();
        assert_eq!(found, row, "master {theirs}");
    }
    assert!(can_follow("8.2.3", "9.0.0").unwrap_err().contains("newer"));
    assert!(can_follow("7.0.15", "dragonfly 1").unwrap_err().contains("not known"));
}

#[test]
fn a_real_dump_says_what_it_is() {
    let rdb = check(DUMP).unwrap();
    assert_eq!(rdb.header, Header::Redis(10));
    assert_eq!(rdb.server_version.as_deref(), Some("7.0.15"));
    assert_eq!(rdb.position, Some(Position { replid: "004ef8284f4e234262ee5926165d0af6a9058355".into(), offset: 0 }));
    assert_eq!(rdb.created_s, Some(0x6b05_2547));
    assert_eq!(rdb.used_memory, Some(0x10_99d8));
    assert!(rdb.checksummed);
    assert_eq!(rdb.bytes, DUMP.len() as u64);
}

#[test]
fn the_checksum_is_the_one_redis_uses() {
    assert_eq!(CRC_64.checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
}

#[test]
fn a_dump_without_checksum_passes() {
    let mut dump = DUMP.to_vec();
    let end = dump.len() - TRAILER_BYTES;
    dump[end..].fill(0);
    let rdb = check(&dump).unwrap();
    assert!(!rdb.checksummed);
    assert_eq!(rdb.crc64, check(DUMP).unwrap().crc64);
}

#[test]
fn every_truncation_is_refused() {
    for length in 0..DUMP.len() {
        let error = check(&DUMP[..length]).unwrap_err();
        assert!(
            matches!(error, Error::TooShort { .. } | Error::NoEnd { .. } | Error::Checksum { .. }),
            "cut to {length} bytes: {error}"
        );
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for bit in 0..DUMP.len() * 8 {
        let mut dump = DUMP.to_vec();
        dump[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&dump).is_err(), "bit {bit} flipped");
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let longer = [DUMP, b"\n"].concat();
    let error = check(&longer).unwrap_err();
    assert_eq!(error, Error::NoEnd { offset: longer.len() as u64 - 9, found: DUMP[DUMP.len() - 8], bytes: longer.len() as u64 });
}

#[test]
fn errors_say_what_and_where() {
    let damaged = {
        let mut dump = DUMP.to_vec();
        dump[200] ^= 4;
        dump
    };
    let text = check(&damaged).unwrap_err().to_string();
    assert!(text.contains("checksum at offset 256") && text.contains("damaged"), "{text}");
    let text = check(b"PK\x03\x04 a zip file, not a dump").unwrap_err().to_string();
    assert!(text.contains("PK\\x03\\x04"), "{text}");
    let old = resealed([b"REDIS0003", &DUMP[9..]].concat());
    assert_eq!(check(&old), Err(Error::TooOld { header: Header::Redis(3) }));
    let bad_aux = resealed([&DUMP[..9], &[0xfa, 0xf0], &DUMP[10..]].concat());
    assert_eq!(check(&bad_aux), Err(Error::Aux { offset: 9, what: "unknown length encoding" }));
}

#[test]
fn valkey_dumps_and_newer_formats_are_read() {
    let valkey = resealed([b"VALKEY080\xfa\x0avalkey-ver\x059.1.2", &DUMP[9..]].concat());
    let rdb = check(&valkey).unwrap();
    assert_eq!((rdb.header, rdb.server_version.as_deref()), (Header::Valkey(80), Some("valkey 9.1.2")));
    assert_eq!(check(&resealed([b"REDIS0099", &DUMP[9..]].concat())).unwrap().header, Header::Redis(99));
}

#[test]
fn who_can_load_what() {
    let headers = ["REDIS0009", "REDIS0010", "REDIS0011", "REDIS0012", "VALKEY080"];
    for (server, loads) in [
        ("6.2.14", [true, false, false, false, false]),
        ("7.0.15", [true, true, false, false, false]),
        ("7.2.4", [true, true, true, false, false]),
        ("7.4.1", [true, true, true, true, false]),
        ("8.2.0", [true, true, true, true, false]),
        ("redis 8.2.0", [true, true, true, true, false]),
        ("valkey 7.2.5", [true, true, true, false, false]),
        ("valkey 8.1.0", [true, true, true, false, false]),
        ("valkey 9.1.2", [true, true, true, false, true]),
    ] {
        let found = headers.map(|h| can_load(server, h.parse().unwrap()).is_ok());
        assert_eq!(found, loads, "{server} of {headers:?}");
    }
    assert!(can_load("7.0.15", Header::Redis(13)).unwrap_err().to_string().contains("up to REDIS0010"));
    assert!(can_load("99.0.0", Header::Redis(40)).is_ok(), "an unknown newer server judges for itself");
    assert!(matches!(can_load("dragon", Header::Redis(9)), Err(Reason::UnknownServer(_))));
    assert!(matches!(can_load("keydb 6.3.4", Header::Redis(9)), Err(Reason::UnknownServer(_))));
}

#[test]
fn headers_are_text() {
    for text in ["REDIS0010", "VALKEY080"] {
        assert_eq!(text.parse::<Header>().unwrap().to_string(), text);
    }
    for text in ["", "REDIS", "REDIS010", "REDIS00100", "REDIS+010", "VALKEY0080", "redis0010", "RÉDIS0010"] {
        assert!(text.parse::<Header>().is_err(), "{text}");
    }
}

#[test]
fn pieces_are_summed_at_their_boundaries() {
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    for length in [0, 1, piece - 1, piece, piece + 1, 2 * piece] {
        let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut digest = Digest::default();
        bytes.chunks(1 << 20).for_each(|chunk| digest.update(chunk));
        let (sums, _) = digest.finish();
        let sum = |b: &[u8]| Sha256(sha2::Sha256::digest(b).into());
        assert_eq!(sums.sha256, sum(&bytes));
        assert_eq!(sums.pieces, bytes.chunks(piece).map(sum).collect::<Vec<_>>(), "{length} bytes");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = check(&bytes);
    }

    #[test]
    fn arbitrary_aux_fields_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0usize..120) {
        let dump = [&DUMP[..9 + start], &bytes, &DUMP[DUMP.len() - 9..]].concat();
        let _ = check(&resealed(dump));
    }

    #[test]
    fn chunks_make_no_difference(cuts in proptest::collection::vec(0..DUMP.len(), 0..20)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let mut checker = Checker::default();
        let mut at = 0;
        for cut in cuts.into_iter().chain([DUMP.len()]) {
            checker.update(&DUMP[at..cut]);
            at = cut;
        }
        prop_assert_eq!(checker.finish(), check(DUMP));
    }

    #[test]
    fn truncated_and_flipped_is_refused(length in 0..DUMP.len(), bit in 0usize..64) {
        let mut dump = DUMP[..length].to_vec();
        if let Some(byte) = dump.get_mut(bit) { *byte ^= 0x10; }
        prop_assert!(check(&dump).is_err());
    }
}
