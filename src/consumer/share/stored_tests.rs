//! The bytes of `__share_group_state`, and what is not such bytes.

use crate::clock::Timestamp;
use crate::consumer::share::state::{Acknowledge, Limits, Want};
use crate::consumer::share::stored::*;

const KEY: StateKey<'_> = StateKey { group: "work", topic_id: 0x0102_0304_0506_0708, partition: 3 };

fn saved() -> Saved {
    let available = Stretch { first: 10, last: 12, state: State::Available, deliveries: 2 };
    let state = State::Archiving { reason: Reason::Deliveries, taken: false };
    let archiving = Stretch { first: 15, last: 15, state, deliveries: 5 };
    Saved { epoch: 7, start: 10, end: 20, stretches: vec![available, archiving] }
}

#[test]
fn bytes_stand_where_they_are_drawn() {
    assert_eq!(KEY.encode(), b"\x01\x01\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0work");
    let value = saved().encode();
    assert_eq!((value[0], value[1], value.len()), (1, 0, 26 + 2 * 15));
    assert_eq!(value[2..6], 7u32.to_le_bytes());
    assert_eq!(value[6..14], 10u64.to_le_bytes());
    assert_eq!(value[14..22], 20u64.to_le_bytes());
    assert_eq!(value[22..26], 2u32.to_le_bytes());
    assert_eq!(&value[26..41], b"\x0A\0\0\0\0\0\0\0\x03\0\0\0\x02\0\0");
    assert_eq!(&value[41..], b"\x0F\0\0\0\0\0\0\0\x01\0\0\0\x05\0\x02");
    assert_eq!(StateKey::parse(&KEY.encode()).unwrap(), KEY);
    assert_eq!(Saved::parse(&value).unwrap(), saved());
}

#[test]
fn what_is_not_a_state_is_refused() {
    let (newer, corrupt) = (ErrorKind::UnsupportedVersion, ErrorKind::CorruptRecord);
    let of_key = |key: &[u8]| Error::from(StateKey::parse(key).unwrap_err()).kind();
    let of_value = |value: &[u8]| Error::from(Saved::parse(value).unwrap_err()).kind();
    let (key, value) = (KEY.encode(), saved().encode());
    (0..=14).for_each(|cut| assert_eq!(of_key(&key[..cut]), corrupt, "{cut}"));
    (0..value.len()).for_each(|cut| assert_eq!(of_value(&value[..cut]), corrupt, "{cut}"));
    let patched = |bytes: &[u8], at: usize, to: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = to;
        bytes
    };
    assert_eq!(of_key(&patched(&key, 0, 2)), newer);
    assert_eq!(of_key(&patched(&key, 1, 2)), newer);
    assert_eq!(of_key(&patched(&key, 14, b'\n')), corrupt);
    assert_eq!(of_value(&patched(&value, 0, 2)), newer);
    assert_eq!(of_value(&patched(&value, 1, 1)), newer);
    assert_eq!(of_value(&patched(&value, 40, 3)), newer, "a state of a newer build");
    assert_eq!(of_value(&patched(&value, 26, 9)), corrupt, "before the start");
    assert_eq!(of_value(&patched(&value, 41, 12)), corrupt, "over the stretch before");
    assert_eq!(of_value(&patched(&value, 14, 15)), corrupt, "beyond the end");
    assert_eq!(of_value(&patched(&value, 34, 0)), corrupt, "of no offsets");
    assert_eq!(of_value(&patched(&value, 33, 0xFF)), corrupt, "offsets that overflow");
    assert_eq!(of_value(&[&value[..], &[0]].concat()), corrupt);
    let backwards = Saved { start: 21, stretches: Vec::new(), ..saved() };
    assert_eq!(of_value(&backwards.encode()), corrupt);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 33
    };
    let (key, value) = (KEY.encode(), saved().encode());
    for _ in 0..20_000 {
        for whole in [&key, &value] {
            let mut bytes = whole.clone();
            for _ in 0..=next() % 3 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            let _ = StateKey::parse(&bytes);
            if let Ok(saved) = Saved::parse(&bytes) {
                let limits = Limits { deliveries: 5, window: 2_000, letters: true };
                let log_end = next();
                let mut machine = Machine::restore(saved.start, saved.end, &saved.stretches, log_end, limits);
                let want = Want { limit: log_end, records: 10, alone: true, until: Timestamp::MAX };
                machine.acquire(1, want);
            }
        }
    }
}

#[test]
fn what_is_finished_is_not_written_and_neighbours_are_one() {
    let mut machine = Machine::new(0, Limits { deliveries: 5, window: 100, letters: false });
    let want = |records| Want { limit: 9, records, alone: true, until: Timestamp::MAX };
    machine.acquire(1, want(3));
    machine.acquire(2, want(3));
    machine.acquire(3, want(3));
    machine.acknowledge(3, 6, 8, 1, Acknowledge::Accept).unwrap();
    machine.acknowledge(1, 0, 0, 1, Acknowledge::Accept).unwrap();
    machine.acknowledge(1, 2, 2, 1, Acknowledge::Release).unwrap();
    let only = Stretch { first: 1, last: 5, state: State::Available, deliveries: 1 };
    assert_eq!(Saved::of(&machine, 1), Saved { epoch: 1, start: 1, end: 9, stretches: vec![only] });
}

#[test]
fn the_table_is_what_its_records_leave() {
    let mut table = StateTable::default();
    let other = StateKey { partition: 4, ..KEY };
    let later = Saved { end: 30, ..saved() };
    table.apply(&KEY.encode(), Some(&saved().encode())).unwrap();
    table.apply(&other.encode(), Some(&saved().encode())).unwrap();
    table.apply(&KEY.encode(), Some(&later.encode())).unwrap();
    table.apply(&other.encode(), None).unwrap();
    assert!(table.apply(&KEY.encode(), Some(b"")).is_err());
    let left = table.take("work");
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [((KEY.topic_id, 3), later)]);
    assert!(table.take("work").is_empty() && table.take("other").is_empty());
}

fn config() -> ShareConfig {
    ShareConfig::new()
        .offset_reset(OffsetReset::By(Duration::from_nanos(7)))
        .acquisition_lock(Duration::from_secs(5))
        .max_delivery_count(3)
        .max_in_flight(100)
        .dead_letter_topic("dead")
}

#[test]
fn settings_stand_where_they_are_drawn() {
    assert_eq!(config_key("work"), b"\x01\x02work");
    let value = encode_config(&config());
    assert_eq!(value[..3], [1, 1, 2]);
    assert_eq!(value[3..11], 7u64.to_le_bytes());
    assert_eq!(value[11..19], 5_000_000_000u64.to_le_bytes());
    assert_eq!(&value[19..], b"\x03\0\x64\0\0\0dead");
    for reset in [OffsetReset::Earliest, OffsetReset::Latest] {
        let config = ShareConfig { reset, letters: None, ..config() };
        assert_eq!(parse_config(&encode_config(&config)).unwrap(), config);
    }
    let mut table = StateTable::default();
    table.apply(&config_key("work"), Some(&value)).unwrap();
    table.apply(&KEY.encode(), Some(&saved().encode())).unwrap();
    assert_eq!((table.take_config("work"), table.take("work").len()), (Some(config()), 1));
    table.apply(&config_key("work"), Some(&value)).unwrap();
    table.apply(&config_key("work"), None).unwrap();
    assert_eq!(table.take_config("work"), None);
}

#[test]
fn what_are_no_settings_is_refused() {
    let value = encode_config(&config());
    let of = |value: &[u8]| {
        StateTable::default().apply(&config_key("work"), Some(value)).map_err(|e| e.kind()).unwrap_err()
    };
    let (newer, corrupt) = (ErrorKind::UnsupportedVersion, ErrorKind::CorruptRecord);
    (0..25).for_each(|cut| assert_eq!(of(&value[..cut]), corrupt, "{cut}"));
    let patched = |at: usize, to: u8| {
        let mut value = value.clone();
        value[at] = to;
        value
    };
    assert_eq!((of(&patched(0, 2)), of(&patched(1, 3)), of(&patched(2, 3))), (newer, newer, newer));
    assert_eq!(of(&patched(1, 0)), corrupt, "letters that nothing tells of");
    assert_eq!((of(&patched(19, 0)), of(&patched(25, 0xFF))), (corrupt, corrupt));
    let error = StateTable::default().apply(b"\x01\x02\n", Some(&value)).unwrap_err();
    assert_eq!(error.kind(), corrupt);
}
