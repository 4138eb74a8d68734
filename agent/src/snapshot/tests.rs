use proptest::prelude::*;

use super::*;

const REPLID_A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const REPLID_B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

pub(super) fn manifest(epoch: Epoch, replid: Option<&str>, offset: Offset, created_s: u64) -> Manifest {
    let mut digest = rdb::Digest::default();
    digest.update(include_bytes!("../../testdata/small.rdb"));
    let (sums, rdb) = digest.finish();
    let origin = Origin { cluster_id: "c1".into(), epoch, created_ms: created_s * 1000, ..Origin::default() };
    let mut manifest = Manifest::new(origin, &rdb::Checked { sums, rdb: rdb.unwrap() });
    manifest.position = replid.map(|r| Position { replid: r.into(), offset });
    manifest
}

#[test]
fn names_hold_epoch_time_and_offset() {
    let id = SnapshotId::new(7, 1_795_499_035_123, 42);
    assert_eq!(id.as_str(), "0000000007-20261124T054355Z-00000000000000000042");
    assert_eq!((id.epoch(), id.created_s(), id.offset()), (7, 1_795_499_035, 42));
    assert_eq!(id.later().as_str(), "0000000007-20261124T054356Z-00000000000000000042");
    assert_eq!(utc_text(1_795_499_035_123), "2026-11-24T05:43:55Z");
}

#[test]
fn other_names_are_refused() {
    for name in [
        "",
        "dump.rdb",
        "7-20261124T054355Z-42",
        "0000000007-20261124T054355Z-99999999999999999999",
        "0000000007-20261324T054355Z-00000000000000000042",
        "0000000007-2026-11-24T054355-00000000000000000042",
        "0000000007-20261124t054355Z-00000000000000000042",
        "0000000007-20261124T054355Z-00000000000000000042-1",
        "0000000007-20261124T054355Z-0000000000000000004２",
        "../../../../etc/passwd",
    ] {
        assert!(name.parse::<SnapshotId>().is_err(), "{name}");
    }
}

#[test]
fn manifests_survive_json() {
    let mut whole = manifest(3, Some(REPLID_A), 500, 1_000_000);
    whole.keys = Some(BTreeMap::from([(0, 4), (3, 1)]));
    whole.request_id = Some("r1".into());
    assert_eq!(Manifest::parse(&whole.to_json()), Ok(whole.clone()));
    assert_eq!(whole.total_keys(), Some(5));
    let bare = manifest(0, None, 0, 0);
    assert_eq!(Manifest::parse(&bare.to_json()), Ok(bare));
}

#[test]
fn bad_manifests_are_refused_with_the_reason() {
    let good = || serde_json::to_value(manifest(3, Some(REPLID_A), 500, 1_000_000)).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut json = good();
        json[field] = value;
        Manifest::parse(&serde_json::to_vec(&json).unwrap()).unwrap_err().to_string()
    };
    for (field, value, reason) in [
        ("format", serde_json::json!(2), "newer than 1"),
        ("format", serde_json::json!("one"), "invalid type: string \"one\""),
        ("bytes", serde_json::json!(-1), "invalid value"),
        ("bytes", serde_json::json!(9_000_000), "1 pieces for 9000000 bytes, expected 3"),
        ("pieces", serde_json::json!(["zz"]), "\"zz\" is not a SHA-256"),
        ("sha256", serde_json::json!("ab"), "\"ab\" is not a SHA-256"),
        ("crc64", serde_json::json!("xyz"), "crc64 is not 16 hex digits"),
        ("piece_bytes", serde_json::json!(1), "piece_bytes is 1"),
        ("rdb", serde_json::json!("ZIP"), "\"ZIP\" is not the header of a dump"),
        ("cluster_id", serde_json::json!(""), "cluster_id is empty"),
        ("position", serde_json::json!({"replid": "x", "offset": 1}), "position.replid is not 40 hex digits"),
    ] {
        let text = with(field, value);
        assert!(text.contains(reason), "{field}: {text}");
    }
    assert!(matches!(Manifest::parse(b"{\"format\": 1}"), Err(Problem::Shape(what)) if what.contains("missing field")));
    assert!(matches!(Manifest::parse(b"\xff\xfe"), Err(Problem::NotJson(_))));
    assert!(matches!(Manifest::parse(b"[]"), Err(Problem::Shape(_))));
    let deep = [b"{\"x\":".as_slice(), &[b'['; 100_000]].concat();
    assert!(matches!(Manifest::parse(&deep), Err(Problem::NotJson(_))));
    let big = vec![b' '; usize::try_from(MANIFEST_MAX_BYTES).unwrap() + 1];
    assert!(matches!(Manifest::parse(&big), Err(Problem::TooBig { .. })));
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let mut json = serde_json::to_value(manifest(3, None, 0, 9)).unwrap();
    json["verified"] = serde_json::json!({"test_load": true});
    assert!(Manifest::parse(&serde_json::to_vec(&json).unwrap()).is_ok());
}

#[test]
fn a_manifest_fits_its_cluster_and_its_name() {
    let m = manifest(3, Some(REPLID_A), 500, 1_000_000);
    assert_eq!(m.check_cluster("c1"), Ok(()));
    assert!(m.check_cluster("c2").unwrap_err().to_string().contains("belongs to cluster c1, not to c2"));
    assert_eq!(m.check_name(&m.id()), Ok(()));
    assert_eq!(m.check_name(&m.id().later().later()), Ok(()), "a name that was taken moves on");
    assert!(m.check_name(&SnapshotId::new(4, 1_000_000_000, 500)).is_err());
    assert!(m.check_name(&SnapshotId::new(3, 1_000_000_000, 501)).is_err());
    assert!(m.check_name(&SnapshotId::new(3, 999_999_000, 500)).is_err());
}

fn ranked(manifests: &[Manifest], epoch_of: impl Fn(&str) -> Option<Epoch>) -> Vec<usize> {
    let named: Vec<_> = manifests.iter().map(|m| (m.id(), m)).collect();
    let order = rank(named.iter().map(|(id, m)| (id, *m)), epoch_of);
    order.iter().map(|(_, m)| manifests.iter().position(|other| std::ptr::eq(other, *m)).unwrap()).collect()
}

#[test]
fn the_best_comes_first() {
    let unknown = |_: &str| None;
    let a = |epoch, offset, time| manifest(epoch, Some(REPLID_A), offset, time);
    let b = |epoch, offset, time| manifest(epoch, Some(REPLID_B), offset, time);
    assert_eq!(ranked(&[a(1, 900, 10), a(2, 5, 5)], unknown), [1, 0], "epoch before offset and time");
    assert_eq!(ranked(&[a(1, 10, 90), a(1, 20, 30)], unknown), [1, 0], "offset before time");
    assert_eq!(ranked(&[a(1, 10, 30), a(1, 10, 90)], unknown), [1, 0], "then time");
    assert_eq!(ranked(&[a(1, 900, 10), b(1, 5, 20), a(1, 800, 15)], unknown), [1, 0, 2], "histories do not mix");
    assert_eq!(ranked(&[manifest(1, None, 0, 10), manifest(1, None, 0, 20)], unknown), [1, 0]);
    let lineage = |replid: &str| (replid == REPLID_A).then_some(7);
    assert_eq!(ranked(&[b(5, 900, 90), a(2, 5, 5)], lineage), [1, 0], "the lineage knows better than the manifest");
}

proptest! {
    #[test]
    fn any_name_is_read_back(epoch: u64, ms in prop_oneof![any::<u64>(), 0..LAST_SECOND * 1000], offset: u64) {
        let id = SnapshotId::new(epoch, ms, offset);
        prop_assert_eq!(id.as_str().parse::<SnapshotId>(), Ok(id.clone()));
        prop_assert_eq!(id.epoch(), epoch.min(EPOCH_MAX));
        prop_assert_eq!(id.created_s(), (ms / 1000).min(LAST_SECOND));
        prop_assert_eq!(id.offset(), offset);
        prop_assert!(!id.as_str().contains(':'));
        prop_assert!(id.later() >= id);
    }

    #[test]
    fn names_sort_like_epochs_and_times(a in (0..20u64, 0..4_000_000_000u64, any::<u64>()), b in (0..20u64, 0..4_000_000_000u64, any::<u64>())) {
        let id = |(epoch, s, offset): (u64, u64, u64)| SnapshotId::new(epoch, s * 1000, offset);
        prop_assert_eq!(id(a).cmp(&id(b)), a.cmp(&b));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        if let Ok(id) = text.parse::<SnapshotId>() {
            prop_assert_eq!(id.as_str(), text);
        }
    }

    #[test]
    fn any_text_of_that_shape_too(text in "[0-9]{10}-[0-9]{8}T[0-9]{6}Z-[0-9]{20}") {
        if let Ok(id) = text.parse::<SnapshotId>() {
            prop_assert_eq!(utc(id.created_s() * 1000), &text[11..27]);
        }
    }

    #[test]
    fn any_manifest_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::parse(&bytes);
    }

    #[test]
    fn rank_does_not_depend_on_the_order(seed in proptest::collection::vec((0..3u64, 0..3usize, 0..4u64, 0..4u64), 1..12)) {
        let manifests: Vec<_> = seed.iter()
            .map(|(e, r, o, t)| manifest(*e, [None, Some(REPLID_A), Some(REPLID_B)][*r], *o, *t)).collect();
        let named: Vec<_> = manifests.iter().map(|m| (m.id(), m)).collect();
        let forwards: Vec<_> = rank(named.iter().map(|(id, m)| (id, *m)), |_| None).into_iter().cloned_pair().collect();
        let backwards: Vec<_> = rank(named.iter().rev().map(|(id, m)| (id, *m)), |_| None).into_iter().cloned_pair().collect();
        prop_assert_eq!(forwards, backwards);
    }
}

trait ClonedPair<'a>: Iterator<Item = (&'a SnapshotId, &'a Manifest)> + Sized {
    fn cloned_pair(self) -> impl Iterator<Item = (SnapshotId, Manifest)> {
        self.map(|(id, m)| (id.clone(), m.clone()))
    }
}
impl<'a, I: Iterator<Item = (&'a SnapshotId, &'a Manifest)>> ClonedPair<'a> for I {}
