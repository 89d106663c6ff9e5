//! Tests of columns: what goes in comes out, how small it is, and that no bytes do harm.

use crate::bytes::put;
use crate::clock::Timestamp;
use crate::columns::frames::{decode, encode};
use crate::columns::input::Input;
use crate::columns::ints;
use crate::frame::{self, commit_word};
use crate::record::Record;

/// A generator that gives the same numbers everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}

/// Key and value of a record.
type Row = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Frames of `rows`: key and value of each, offsets and times that rise.
fn frames(rows: &[Row]) -> Vec<u8> {
    let mut all = Vec::new();
    for (i, (key, value)) in rows.iter().enumerate() {
        let record = Record { key: key.as_deref(), value: value.as_deref(), ..Record::default() };
        let time = Timestamp::from_nanos(1_700_000_000_000_000_000 + i as i64 * 1_700);
        all.extend(frame::to_vec(&record, 1_000 + i as u64, time, 0));
    }
    all
}

/// Encodes, decodes, compares; returns how long the columns are.
fn round_trip(frames: &[u8]) -> usize {
    let columns = encode(frames).expect("our own frames");
    let mut back = vec![0xAA; frames.len()];
    decode(&columns, &mut back).unwrap();
    assert!(back == frames, "not what went in");
    columns.len()
}

fn ticks(count: u64, random: &mut Random) -> Vec<Row> {
    let mut ns = 1_700_000_000_000_000_000;
    (0..count)
        .map(|i| {
            ns += random.below(2_000_000);
            let symbol = ["ESH4", "EURUSD", "BTC", "AAPL"][random.below(4) as usize];
            let side = if random.below(2) == 0 { "buy" } else { "sell" };
            let (units, cents, size) = (random.below(900), random.below(100), 100 * (1 + random.below(10)));
            let json = format!(
                "{{\"symbol\":\"{symbol}\",\"ts\":{ns},\"seq\":{i},\"price\":{units}.{cents:02},\"size\":{size},\
                 \"side\":\"{side}\",\"condition\":\"@\"}}"
            );
            (Some(i.to_be_bytes().to_vec()), Some(json.into_bytes()))
        })
        .collect()
}

#[test]
fn ticks_as_json_become_a_tenth() {
    let frames = frames(&ticks(400, &mut Random(7)));
    let len = round_trip(&frames);
    assert!(len * 10 < frames.len(), "{len} of {}", frames.len());
}

#[test]
fn structs_of_integers_become_a_fifth() {
    let mut random = Random(3);
    let mut price = 4_800_000u64;
    let rows: Vec<_> = (0..400u64)
        .map(|i| {
            price = price + random.below(9) - 4;
            let mut value = (1_700_000_000_000_000_000 + i * 911).to_le_bytes().to_vec();
            value.extend(price.to_le_bytes());
            value.extend((random.below(20) as u32).to_le_bytes());
            value.extend((random.below(2) as u32).to_le_bytes());
            value.extend([0, 0, 7]);
            (None, Some(value))
        })
        .collect();
    let frames = frames(&rows);
    let len = round_trip(&frames);
    assert!(len * 5 < frames.len(), "{len} of {}", frames.len());
}

#[test]
fn what_is_missing_is_not_what_is_empty() {
    let (none, empty) = (None, Some(Vec::new()));
    let rows = [
        (none.clone(), none.clone()),
        (none.clone(), empty.clone()),
        (empty.clone(), none),
        (empty.clone(), empty),
        (Some(b"k".to_vec()), Some(b"v".to_vec())),
    ];
    for row in &rows {
        round_trip(&frames(std::slice::from_ref(row)));
    }
    round_trip(&frames(&rows));
    round_trip(&[]);
}

#[test]
fn numbers_keep_their_zeros() {
    for cells in [
        vec!["0", "1", "10"],
        vec!["00", "01", "10"],
        vec!["007", "7", "0"],
        vec!["18446744073709551615", "1", "2"],
        vec!["9999999999999999999", "1", "2"],
        vec!["0000000000000000001", "1", "2"],
        vec!["000000000000000000", "1", "2"],
        vec!["12345678", "1234567a", "x"],
        vec!["", "1", "2"],
        vec!["\u{e9}t\u{e9}", "hiver", "1"],
    ] {
        let row = |cell: &&str| (None, Some(format!("{{\"a\":{cell},\"b\":-{cell}.5}}").into_bytes()));
        round_trip(&frames(&cells.iter().map(row).collect::<Vec<_>>()));
    }
}

/// Rows of one template, with each of `cells` in its hole.
fn rows_of(cells: impl Iterator<Item = String>) -> Vec<Row> {
    cells.map(|cell| (None, Some(format!("{{\"a\":{cell},\"b\":\"{cell}\"}}").into_bytes()))).collect()
}

/// A cell of eight bytes or more is first taken to be as long as the one before, so it may come to hold what ends cells.
#[test]
fn a_cell_may_hold_what_ends_it() {
    let literals = [",\"b\":", ",\"a longer literal\":", ",\"a literal of more than thirty-two bytes\":"];
    for literal in literals {
        let row = |a: String, b: &str| (None, Some(format!("{{\"a\":{a}{literal}{b}}}").into_bytes()));
        for shorter in 0..=literal.len() + 9 {
            let holds = format!("{}{literal}{}", "1".repeat(8), "2".repeat(9));
            let rows = [
                row("3".repeat(literal.len() + 17), "4"),
                row(holds.clone(), "5"),
                row(holds[shorter..].to_owned(), "6"),
                row("7".repeat(30), "8"),
                row(String::new(), ""),
            ];
            round_trip(&frames(&rows.iter().cycle().take(100).cloned().collect::<Vec<_>>()));
        }
    }
}

#[test]
fn numbers_of_every_length_come_back() {
    let mut random = Random(5);
    for len in 1..=21usize {
        let mut number = |leading: char| {
            let digits = (1..len).map(|_| char::from(b'0' + random.below(10) as u8));
            std::iter::once(leading).chain(digits).collect::<String>()
        };
        let plain: Vec<_> = (0..50).map(|_| number('9')).collect();
        let zeros: Vec<_> = (0..50).map(|i| number(if i < 25 { '1' } else { '0' })).collect();
        for cells in [plain, zeros] {
            let all = frames(&rows_of(cells.iter().cloned()));
            round_trip(&all);
            // One byte that is no digit, at each place of a cell in the middle.
            for at in 0..len {
                for byte in ["/", ":", "\u{7f}", "a"] {
                    let mut cells = cells.clone();
                    cells[30].replace_range(at..=at, byte);
                    round_trip(&frames(&rows_of(cells.into_iter())));
                }
            }
        }
    }
}

#[test]
fn cells_may_change_kind_in_the_middle_of_a_block() {
    let word = |i: u64| format!("w{i}");
    let long = |i: u64| format!("a word of more than sixteen bytes {i}");
    let number = |i: u64| format!("{}", i * 7);
    let zeros = |i: u64| format!("{:05}", i * 3);
    let nineteen = |i: u64| format!("{}", 1_700_000_000_000_000_000 + i);
    let few = |i: u64| word(i % 5);
    let kinds: [&dyn Fn(u64) -> String; 6] = [&word, &long, &number, &zeros, &nineteen, &few];
    for first in kinds {
        for second in kinds {
            // Fewer words than a table takes, and more.
            for count in [40, 300, 700] {
                let cells = (0..count).map(|i| if i < count / 2 { first(i) } else { second(i) });
                round_trip(&frames(&rows_of(cells)));
            }
        }
    }
}

#[test]
fn a_block_owes_nothing_to_the_one_before() {
    let mut random = Random(21);
    let blocks = [
        frames(&ticks(300, &mut random)),
        frames(&rows_of((0..600).map(|i| format!("w{i}")))),
        frames(&rows_of((0..100).map(|i| format!("{i:03}")))),
        frames(&ticks(20, &mut random)),
        frames(&rows_of((0..9).map(|i| format!("odd {}", "x".repeat(i))))),
    ];
    let alone = |block: Vec<u8>| std::thread::spawn(move || encode(&block).unwrap()).join().unwrap();
    let first: Vec<_> = blocks.iter().cloned().map(alone).collect();
    for _ in 0..2 {
        for (block, first) in blocks.iter().zip(&first).rev() {
            assert!(encode(block).unwrap() == *first);
            round_trip(block);
        }
    }
}

#[test]
fn producer_parts_and_headers_come_back() {
    let mut all = Vec::new();
    for i in 0..50u32 {
        let headers: &[(&str, &[u8])] = if i % 3 == 0 { &[("trace", b"abc"), ("", b"")] } else { &[] };
        let value = format!("v{i}");
        let record = Record { headers, ..Record::new(value.as_bytes()) };
        let producer =
            (i % 2 == 0).then_some(frame::ProducerPart { id: 9, epoch: 1, sequence: i, attributes: 0 });
        let mut out = vec![0; frame::frame_len(&record, producer.is_some()).unwrap()];
        let tag = frame::write(&mut out, &record, u64::from(i) * 2, Timestamp::default(), 0, producer);
        let word = commit_word(out.len() as u32, tag);
        put(&mut out, 0, &word.to_le_bytes());
        all.extend(out);
    }
    round_trip(&all);
}

/// Rows of many kinds beside each other, from a seed that is printed when one fails.
#[test]
fn whatever_goes_in_comes_out() {
    for seed in 1..=400u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let kinds = 1 + random.below(4);
        let count = random.below(300);
        let rows: Vec<_> = (0..count)
            .map(|i| {
                let value = match (seed + random.below(kinds)) % 8 {
                    0 => format!("{{\"p\":{}.{:02}}}", random.below(1 << 40), random.below(100)).into_bytes(),
                    1 => (0..random.below(40)).map(|_| random.next() as u8).collect(),
                    2 => {
                        (i * 3).to_le_bytes().iter().chain(&random.below(5).to_be_bytes()).copied().collect()
                    }
                    3 => format!("8=FIX.4.2\u{1}35=D\u{1}38={}\u{1}", random.below(1000)).into_bytes(),
                    4 => vec![b'a' + random.below(3) as u8; random.below(20) as usize],
                    5 => (0..17).map(|_| random.below(2) as u8).collect(),
                    6 => ",".repeat(random.below(5) as usize).into_bytes(),
                    _ => format!("{}", random.next() as i64 >> random.below(60)).into_bytes(),
                };
                let key = (random.below(3) > 0).then(|| vec![random.below(4) as u8; (seed % 4) as usize]);
                (key, (random.below(20) > 0).then_some(value))
            })
            .collect();
        let frames = frames(&rows);
        let result = std::panic::catch_unwind(|| round_trip(&frames));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn every_form_of_integers_comes_back() {
    let mut random = Random(11);
    let mut columns =
        vec![vec![], vec![5], vec![7; 100], (0..100).map(|i| i * 3).collect(), vec![0, u64::MAX]];
    columns.push((0..100).rev().map(|i| u64::MAX - i * 3).collect());
    for bits in 1..=64 {
        columns.push((0..130).map(|_| random.next() >> (64 - bits)).collect());
        let mut v = 0u64;
        let walk = std::iter::repeat_with(|| {
            v = v.wrapping_add(random.next() >> (64 - bits));
            v
        });
        columns.push(walk.take(200).collect());
    }
    let table: Vec<u64> = (0..200).map(|_| random.next()).collect();
    columns.push((0..4000).map(|_| table[random.below(200) as usize]).collect());
    for column in columns {
        let mut out = Vec::new();
        let plan = ints::plan(&column);
        ints::encode(&column, &mut out);
        assert!(out.len() <= plan.cost + 1, "{plan:?} took {}", out.len());
        let mut input = Input(&out);
        assert_eq!(ints::decode(&mut input, column.len()).unwrap(), column);
        assert!(input.0.is_empty());
    }
}

/// No bytes make `decode` panic, or take memory that has nothing to do with what it was asked for.
#[test]
fn bytes_of_others_are_refused_or_read() {
    let mut random = Random(99);
    let frames = frames(&ticks(60, &mut random));
    let good = encode(&frames).unwrap();
    let mut out = vec![0; frames.len()];
    for len in 0..good.len() {
        assert!(decode(&good[..len], &mut out).is_err(), "cut at {len}");
    }
    for _ in 0..20_000 {
        let mut bad = good.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bad.len() as u64) as usize;
            bad[at] = if random.below(3) == 0 { 0xFF } else { random.next() as u8 };
        }
        let _ = decode(&bad, &mut out);
        let noise: Vec<u8> = (0..random.below(60)).map(|_| random.next() as u8).collect();
        let _ = decode(&noise, &mut out);
    }
    assert!(decode(&good, &mut vec![0; frames.len() - 8]).is_err());
    assert!(decode(&good, &mut vec![0; frames.len() + 8]).is_err());
}

#[test]
fn frames_with_something_in_their_padding_stay_as_they_are() {
    let mut frames = frames(&[(Some(b"k".to_vec()), Some(b"value".to_vec()))]);
    let last = frames.len() - 1;
    frames[last] = 1;
    assert!(encode(&frames).is_none());
}
