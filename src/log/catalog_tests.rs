//! Tests of `catalog`.

use crate::log::catalog::*;

const ID: u64 = 0x9f2c_07d1_a4b3_e856;

fn every_setting() -> TopicConfig {
    TopicConfig::new()
        .partitions(4)
        .compression(Compression::Custom(200))
        .segment_bytes(u64::MAX)
        .max_record_bytes(17)
        .sync_policy(SyncPolicy::Every(Duration::from_millis(50)))
        .timestamp_type(TimestampType::Append)
        .block_linger(Duration::MAX)
}

fn decode(text: &str) -> Result<TopicRecord> {
    TopicRecord::decode("ticks", text.as_bytes())
}

fn refused(text: &str, kind: ErrorKind, why: &str) {
    let error = decode(text).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (kind, Some("ticks")), "{text:?}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn the_text_is_as_drawn() {
    let record = TopicRecord::new(ID, every_setting());
    let text = "topic 1\nid=9f2c07d1a4b3e856\npartitions=4\ncompression=custom:200\n\
                segment_bytes=18446744073709551615\nmax_record_bytes=17\nsync_policy=every:0.050000000\n\
                timestamp_type=append\nblock_linger=18446744073709551615.999999999\n";
    assert_eq!(record.encode(), text);
    assert_eq!(decode(text).unwrap(), record);
}

#[test]
fn only_what_is_set_is_stored_and_partitions_always() {
    let record = TopicRecord::new(ID, TopicConfig::new());
    assert_eq!(record.encode(), "topic 1\nid=9f2c07d1a4b3e856\npartitions=1\n");
    let back = decode(&record.encode()).unwrap();
    assert_eq!(back.config, TopicConfig::new().partitions(1));
    assert_eq!(back.config.resolved(), TopicConfig::new().resolved());
    for policy in [SyncPolicy::Never, SyncPolicy::EveryRecords(9), SyncPolicy::Every(Duration::from_nanos(1))]
    {
        let config = TopicConfig::new().partitions(1).sync_policy(policy);
        assert_eq!(decode(&TopicRecord::new(ID, config.clone()).encode()).unwrap().config, config);
    }
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    const HEAD: &str = "topic 1\nid=9f2c07d1a4b3e856\npartitions=1\n";
    let with = |line: &str| format!("{HEAD}{line}\n");
    let (newer, corrupt) = (ErrorKind::UnsupportedVersion, ErrorKind::CorruptRecord);
    refused(&with("colour=red"), newer, "\"colour\"");
    refused(&with("compression=brotli"), newer, "\"compression\"");
    refused(&with("sync_policy=sometimes"), newer, "\"sync_policy\"");
    refused(&with("timestamp_type=both"), newer, "\"timestamp_type\"");
    refused(&HEAD.replace("topic 1", "topic 2"), newer, "version 2");
    refused(&with("partitions=1"), corrupt, "twice");
    refused(&with("id=9f2c07d1a4b3e856"), corrupt, "twice");
    refused(&with("segment_bytes=+5"), corrupt, "segment_bytes");
    refused(&with("segment_bytes="), corrupt, "segment_bytes");
    refused(&with("segment_bytes=18446744073709551616"), corrupt, "segment_bytes");
    refused(&with("segment_bytes=0"), corrupt, "segment_bytes");
    refused(&with("block_linger=5"), corrupt, "block_linger");
    refused(&with("block_linger=1.5"), corrupt, "block_linger");
    refused(&with(""), corrupt, "lines");
    refused(&with("no equals sign"), corrupt, "lines");
    refused(&HEAD.replace("partitions=1", "partitions=0"), corrupt, "partitions");
    refused(&HEAD.replace("partitions=1", "partitions=4000000000"), corrupt, "partitions");
    refused("topic 1\nid=9f2c07d1a4b3e856\n", corrupt, "\"partitions\" is missing");
    refused("topic 1\npartitions=1\n", corrupt, "\"id\" is missing");
    refused(&HEAD.replace("e856", "E856"), corrupt, "\"id\"");
    refused(&HEAD.replace("e856", "e8"), corrupt, "\"id\"");
    refused(&HEAD.replace("9f2c07d1a4b3e856", "0000000000000007"), corrupt, "not for a topic");
    refused("", corrupt, "lines");
    refused("topics 1\n", corrupt, "lines");
}

#[test]
fn no_bytes_make_decode_panic_and_every_cut_is_noticed() {
    let good = TopicRecord::new(ID, every_setting()).encode().into_bytes();
    // A cut at the end of a line after `partitions` is a legal record of fewer settings: what a record holds
    // is proved by the frame around it.
    for cut in (0..good.len()).filter(|&cut| cut == 0 || good[cut - 1] != b'\n') {
        assert!(TopicRecord::decode("ticks", &good[..cut]).is_err(), "cut at {cut}");
    }
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % bad.len();
            bad[at] = (state >> 56) as u8;
        }
        let _ = TopicRecord::decode("ticks", &bad);
    }
}

#[test]
fn set_fields_of_a_change_win() {
    let change = TopicConfig::new().compression(Compression::None).segment_bytes(5);
    let merged = every_setting().merged(&change);
    assert_eq!(merged, every_setting().compression(Compression::None).segment_bytes(5));
    assert_eq!(TopicConfig::new().merged(&every_setting()), every_setting());
    assert_eq!(every_setting().merged(&TopicConfig::new()), every_setting());
}

#[test]
fn impossible_settings_are_named() {
    let kind = |config: TopicConfig, name: &str| {
        let error = config.resolved().validate().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        error.kind()
    };
    let new = TopicConfig::new;
    assert_eq!(kind(new().partitions(0), "partitions"), ErrorKind::InvalidPartitions);
    assert_eq!(kind(new().partitions(100_001), "partitions"), ErrorKind::InvalidPartitions);
    for (config, name) in [
        (new().segment_bytes(0), "segment_bytes"),
        (new().max_record_bytes(0), "max_record_bytes"),
        (new().max_record_bytes(u32::MAX), "max_record_bytes"),
        (new().compression(Compression::Custom(5)), "compression"),
        (new().sync_policy(SyncPolicy::Every(Duration::ZERO)), "sync_policy"),
        (new().sync_policy(SyncPolicy::EveryRecords(0)), "sync_policy"),
    ] {
        assert_eq!(kind(config, name), ErrorKind::InvalidConfig);
    }
    new().resolved().validate().unwrap();
    every_setting().resolved().validate().unwrap();
    new().segment_bytes(1).partitions(100_000).block_linger(Duration::ZERO).resolved().validate().unwrap();
}

#[test]
fn names_of_topics() {
    let longest = "a".repeat(249);
    for name in ["a", "a.b_c-D9", "...", "__topics", &longest] {
        check_topic_name(name).unwrap();
    }
    let long = "a".repeat(250);
    for (name, why) in [
        ("", "empty"),
        (".", "\".\""),
        ("..", "\"..\""),
        (&*long, "249"),
        (";3# ads,{234", "';'"),
        ("a/b", "'/'"),
        ("é", "'é'"),
        ("a\0", "'\\0'"),
    ] {
        let error = check_topic_name(name).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::InvalidTopic, Some(name)));
        assert!(error.to_string().contains(why), "{error}");
    }
    assert!(is_internal("__topics") && !is_internal("_topics"));
}

#[test]
fn folders_carry_the_id() {
    assert_eq!(folder_name("ticks", ID), "ticks.9f2c07d1a4b3e856");
    let long = folder_name(&"a".repeat(249), 1);
    assert_eq!(long.len(), 217);
    for folder in ["ticks.9f2c07d1a4b3e856", "renamed.by.hand.9f2c07d1a4b3e856"] {
        assert_eq!(folder_id(folder), Some(ID));
    }
    assert_eq!(folder_id(&long), Some(1));
    for folder in
        ["", "ticks", ".9f2c07d1a4b3e856", "ticks.9F2C07D1A4B3E856", "ticks.9f2c", "ticks.+f2c07d1a4b3e856"]
    {
        assert_eq!(folder_id(folder), None, "{folder:?}");
    }
}

#[test]
fn the_catalog_is_what_its_records_leave() {
    let mut catalog = Catalog::default();
    let record = |id, partitions| TopicRecord::new(id, TopicConfig::new().partitions(partitions));
    let mut apply = |name: &str, record: Option<&TopicRecord>| {
        let value = record.map(TopicRecord::encode);
        let change = catalog.apply(name.as_bytes(), value.as_ref().map(String::as_bytes));
        (change.map_err(|e| e.kind()), catalog.clone())
    };
    let (a, grown, again) = (record(1000, 2), record(1000, 3), record(1001, 1));
    assert_eq!(apply("a", Some(&a)).0, Ok(Change::Created));
    assert_eq!(apply("a", Some(&a)).0, Ok(Change::Nothing));
    let (change, state) = apply("a", Some(&grown));
    assert_eq!(change, Ok(Change::Altered(a.clone())));
    assert_eq!(state.by_id(1000), Some(("a", &grown)));

    assert_eq!(apply("a", Some(&a)).0, Err(ErrorKind::CorruptRecord), "partitions never shrink");
    assert_eq!(apply("b", Some(&a)).0, Err(ErrorKind::CorruptRecord), "the id is taken");
    assert_eq!(apply("a/b", Some(&a)).0, Err(ErrorKind::CorruptRecord));
    assert_eq!(apply("__topics", Some(&a)).0, Err(ErrorKind::CorruptRecord), "not its id");

    let (change, state) = apply("a", Some(&again));
    assert_eq!(change, Ok(Change::Replaced(grown)));
    assert_eq!((state.by_id(1000), state.by_id(1001)), (None, Some(("a", &again))));
    assert_eq!(apply("a", None).0, Ok(Change::Deleted(again)));
    let (change, state) = apply("a", None);
    assert_eq!(change, Ok(Change::Nothing));
    assert_eq!((state.get("a"), state.by_id(1001), state.iter().count()), (None, None, 0));

    assert_eq!(apply("__consumer_offsets", Some(&record(2, 1))).0, Ok(Change::Created));
    assert_eq!(apply("b", Some(&a)).0, Ok(Change::Created), "a freed id");
    let (_, state) = apply("a", Some(&record(1002, 1)));
    assert_eq!(state.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["__consumer_offsets", "a", "b"]);
}

#[test]
fn start_offsets_are_stored_and_must_fit() {
    let mut record = TopicRecord::new(ID, TopicConfig::new().partitions(4));
    assert!(!record.encode().contains("start_offsets"));
    record.starts = [(0, 6), (3, 10)].into();
    let text = record.encode();
    assert!(text.ends_with("\nstart_offsets=0:6,3:10\n"), "{text}");
    assert_eq!(decode(&text).unwrap(), record);
    assert_eq!([0, 1, 2, 3].map(|n| record.start_of(n)), [6, 0, 0, 10]);
    for bad in ["", "0", "0:0", "0:-1", "3:10,0:6", "0:6,0:7", "4:1", "0:6,", "0:18446744073709551616"] {
        let text = text.replace("0:6,3:10", bad);
        assert_eq!(decode(&text).unwrap_err().kind(), ErrorKind::CorruptRecord, "{bad}");
    }
}
