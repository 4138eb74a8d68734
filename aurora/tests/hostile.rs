//! Bytes that nobody sends in good faith: every one gives a value or an error, at once and in bounded memory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use aurora::types::{JobKey, Payload, Resource, Response, ResponseCode, ScheduleStatus, TaskQuery};
use aurora::wire::{ApplicationException, Call, Error, Reply, decode_call, decode_reply, encode_call, encode_reply};

/// Contents of the recorded files whose name ends with `suffix`.
fn recordings(suffix: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let files = std::fs::read_dir(directory).expect("the recordings").map(|entry| entry.expect("an entry").path());
    let wanted = files.filter(|path| path.to_string_lossy().ends_with(suffix));
    wanted.map(|path| std::fs::read(path).expect("a recording")).collect()
}

/// A reply's method, whatever stands in the message.
fn read_reply(bytes: &[u8]) -> Result<Reply, Error> {
    decode_reply("getTasksStatus", 0, bytes)
}

/// Gives `decode` every beginning of `bytes`, and `bytes` with each byte replaced by each of some values.
fn damaged(bytes: &[u8], decode: impl Fn(&[u8])) {
    let mut changed = bytes.to_vec();
    for at in 0..bytes.len() {
        decode(&bytes[..at]);
        for value in [0x00, 0x7f, 0xff, bytes[at] ^ 1] {
            changed[at] = value;
            decode(&changed);
        }
        changed[at] = bytes[at];
    }
}

/// The start of a message of this type, for a method.
fn header(message_type: u8, method: &str) -> Vec<u8> {
    let mut bytes = vec![0x80, 1, 0, message_type];
    bytes.extend((method.len() as u32).to_be_bytes());
    bytes.extend(method.as_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn every_flipped_byte_and_every_cut_of_a_recording_is_survived() {
    let start = Instant::now();
    for bytes in recordings(".req.bin") {
        damaged(&bytes, |damaged| drop(decode_call(damaged)));
    }
    for bytes in recordings(".resp.bin") {
        let length = usize::from(bytes[7]);
        let method: &'static str = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap().leak();
        damaged(&bytes, |damaged| drop(decode_reply(method, 0, damaged)));
    }
    assert!(start.elapsed() < Duration::from_secs(60), "decoding takes too long: {:?}", start.elapsed());
}

#[test]
fn every_cut_of_a_request_is_an_error() {
    for bytes in recordings(".req.bin") {
        for at in 0..bytes.len() {
            assert!(decode_call(&bytes[..at]).is_err(), "cut at {at} of {}", bytes.len());
        }
    }
}

#[test]
fn sizes_beyond_the_message_are_refused() {
    let mut name = vec![0x80, 1, 0, 1];
    name.extend(0x7fff_ffff_u32.to_be_bytes());
    assert!(matches!(decode_call(&name), Err(Error::Malformed(_))));
    let mut set = header(1, "killTasks");
    set.extend([14, 0, 5, 8]);
    set.extend(0x7fff_ffff_u32.to_be_bytes());
    assert!(matches!(decode_call(&set), Err(Error::Malformed(_))));
    let mut negative = header(1, "killTasks");
    negative.extend([14, 0, 5, 8, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(decode_call(&negative), Err(Error::Malformed(_))));
}

#[test]
fn a_list_of_very_many_empty_structs_is_refused() {
    let mut bytes = header(2, "getTasksStatus");
    bytes.extend([12, 0, 0, 12, 0, 3, 12, 0, 3, 15, 0, 1, 12]);
    bytes.extend((8_u32 << 20).to_be_bytes());
    bytes.resize(bytes.len() + (8 << 20), 0);
    assert!(matches!(read_reply(&bytes), Err(Error::TooManyElements)));
}

#[test]
fn a_deep_nest_is_refused() {
    let mut bytes = header(1, "getRoleSummary");
    for _ in 0..100_000 {
        bytes.extend([12, 0, 9]);
    }
    assert!(matches!(decode_call(&bytes), Err(Error::Malformed(_))));
}

#[test]
fn unknown_fields_and_wrong_types_are_skipped_as_the_scheduler_does() {
    let mut bytes = header(1, "killTasks");
    bytes.extend([12, 0, 4, 11, 0, 1, 0, 0, 0, 1, b'r', 0]); // 4: a job key with a role
    bytes.extend([11, 0, 5, 0, 0, 0, 1, b'7']); // 5: a text where the set of instances belongs
    bytes.extend([15, 0, 99, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]); // 99: an unknown list
    let (_, call) = decode_call(&bytes).unwrap();
    assert_eq!(call, Call::KillTasks { job: JobKey::new("r", "", ""), instances: None, message: None });
}

#[test]
fn a_kill_of_the_whole_job_can_be_read_in_both_forms() {
    for instances in [None, Some(vec![])] {
        let call = Call::KillTasks { job: JobKey::new("r", "e", "n"), instances, message: None };
        assert_eq!(decode_call(&encode_call(&call, 7).unwrap()).unwrap(), (7, call));
    }
}

#[test]
fn an_unknown_method_can_be_answered() {
    let mut bytes = header(1, "pruneTasks");
    bytes.push(0);
    let Err(Error::UnknownMethod { method, seqid }) = decode_call(&bytes) else { panic!("pruneTasks is not offered") };
    let reply = Reply::Exception(ApplicationException::unknown_method(&method));
    let answer = encode_reply(&method, seqid, &reply).unwrap();
    assert_eq!(decode_reply("getJobs", seqid, &answer).unwrap(), reply);
}

#[test]
fn a_call_without_its_argument_names_it() {
    let mut bytes = header(1, "restartShards");
    bytes.push(0);
    let Err(Error::MissingArgument { method, argument, .. }) = decode_call(&bytes) else { panic!("there is no job key") };
    assert_eq!((method, argument), ("restartShards", "job"));
}

#[test]
fn the_header_of_old_clients_is_read() {
    let mut bytes = 7_u32.to_be_bytes().to_vec();
    bytes.extend(b"getJobs\x01\0\0\0\x05\0");
    assert_eq!(decode_call(&bytes).unwrap(), (5, Call::GetJobs { owner_role: None }));
}

#[test]
fn a_reply_to_another_call_is_refused() {
    let reply = Reply::Response(Response::default());
    let bytes = encode_reply("getJobs", 3, &reply).unwrap();
    assert!(matches!(decode_reply("getJobs", 4, &bytes), Err(Error::WrongReply { .. })));
    assert!(matches!(decode_reply("getRoleSummary", 3, &bytes), Err(Error::WrongReply { .. })));
    let mut call = header(1, "getJobs");
    call.push(0);
    assert!(matches!(decode_reply("getJobs", 0, &call), Err(Error::WrongReply { .. })));
    let mut empty = header(2, "getJobs");
    empty.push(0);
    assert!(matches!(decode_reply("getJobs", 0, &empty), Err(Error::EmptyReply { .. })));
}

#[test]
fn numbers_of_a_newer_scheduler_pass_through() {
    let response = Response { response_code: ResponseCode(77), ..Response::default() };
    let bytes = encode_reply("getJobs", 0, &Reply::Response(response.clone())).unwrap();
    assert_eq!(decode_reply("getJobs", 0, &bytes).unwrap(), Reply::Response(response));
    let query = TaskQuery { statuses: vec![ScheduleStatus(99)], ..TaskQuery::default() };
    let call = Call::GetTasksStatus { query };
    assert_eq!(decode_call(&encode_call(&call, 0).unwrap()).unwrap().1, call);
    assert_eq!(ScheduleStatus(99).to_string(), "ScheduleStatus(99)");
}

#[test]
fn a_result_of_an_unknown_kind_is_read_and_not_written() {
    let mut bytes = header(2, "getQuota");
    bytes.extend([12, 0, 0, 8, 0, 1, 0, 0, 0, 1, 12, 0, 3, 12, 0, 5, 0, 0, 0, 0]);
    let reply = decode_reply("getQuota", 0, &bytes).unwrap();
    let Reply::Response(Response { result: Some(Payload::Unknown(5)), .. }) = &reply else { panic!("{reply:?}") };
    assert!(matches!(encode_reply("getQuota", 0, &reply), Err(Error::Unwritable { union: "Payload", field: 5 })));
    let unknown = Call::CreateJob { description: Box::default() };
    let Call::CreateJob { mut description } = unknown else { unreachable!("just built") };
    description.task_config.resources = vec![Resource::Unknown(9)];
    assert!(matches!(encode_call(&Call::CreateJob { description }, 0), Err(Error::Unwritable { .. })));
}
