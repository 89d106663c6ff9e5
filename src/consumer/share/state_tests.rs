//! What Kafka's `SharePartitionTest` asserts, with its numbers; and the machine beside the simplest model.

use std::time::Duration;

use crate::consumer::share::state::*;

const LIMITS: Limits = Limits { deliveries: 5, window: 2_000, letters: false };
const LOCK: Duration = Duration::from_secs(30);

fn at(secs: u64) -> Timestamp {
    Timestamp::from_nanos(0).saturating_add(Duration::from_secs(secs))
}

fn want(limit: u64, records: usize, now: Timestamp) -> Want {
    Want { limit, records, alone: true, until: now.saturating_add(LOCK) }
}

/// What a member gets: first, last, deliveries.
fn take(machine: &mut Machine, member: MemberId, limit: u64, records: usize) -> Vec<(u64, u64, u16)> {
    let taken = machine.acquire(member, want(limit, records, at(0)));
    taken.into_iter().map(|s| (s.first, s.last, s.deliveries)).collect()
}

fn state_of(machine: &Machine, offset: u64) -> &'static str {
    match machine.state(offset).map(|(state, _)| state) {
        None => "none",
        Some(State::Available) => "available",
        Some(State::Acquired { .. }) => "acquired",
        Some(State::Archiving { .. }) => "archiving",
        Some(State::Acknowledged) => "acknowledged",
        Some(State::Archived) => "archived",
    }
}

#[test]
fn q_01_records_are_acquired() {
    let mut machine = Machine::new(10, LIMITS);
    assert_eq!(take(&mut machine, 1, 15, 500), [(10, 14, 1)]);
    assert_eq!((state_of(&machine, 10), state_of(&machine, 14)), ("acquired", "acquired"));
    assert_eq!((machine.next_fetch(), machine.start()), (15, 10));
    assert_eq!(take(&mut machine, 2, 15, 500), [], "they are taken");
    let mut machine = Machine::new(10, LIMITS);
    assert_eq!(take(&mut machine, 1, 30, 10), [(10, 19, 1)], "no more than asked for");
    assert_eq!(machine.next_fetch(), 20);
}

#[test]
fn q_03_released_records_come_again() {
    let mut machine = Machine::new(10, LIMITS);
    take(&mut machine, 1, 15, 500);
    machine.acknowledge(1, 12, 13, 1, Acknowledge::Release).unwrap();
    assert_eq!(machine.next_fetch(), 12);
    assert_eq!(take(&mut machine, 1, 15, 500), [(12, 13, 2)]);
    assert_eq!(machine.next_fetch(), 15);
}

#[test]
fn q_05_only_who_holds_a_record_settles_it() {
    let mut machine = Machine::new(5, LIMITS);
    take(&mut machine, 1, 10, 500);
    for acknowledge in [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject] {
        let before = machine.clone();
        for (member, first, last, deliveries) in [(2, 5, 9, 1), (1, 5, 10, 1), (1, 4, 9, 1), (1, 5, 9, 2)] {
            let error = machine.acknowledge(member, first, last, deliveries, acknowledge).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRecordState);
            assert_eq!((5..10).map(|o| machine.state(o)).collect::<Vec<_>>(), {
                (5..10).map(|o| before.state(o)).collect::<Vec<_>>()
            });
        }
    }
    machine.acknowledge(1, 5, 9, 1, Acknowledge::Accept).unwrap();
    assert_eq!(machine.start(), 10);
}

#[test]
fn q_07_locks_end_and_deliveries_are_limited() {
    let mut machine = Machine::new(0, Limits { deliveries: 2, ..LIMITS });
    take(&mut machine, 1, 1, 500);
    assert!(!machine.expire(at(29)));
    assert_eq!(machine.next_expiry(), Some(at(30)));
    assert!(machine.expire(at(30)));
    assert_eq!(machine.state(0), Some((State::Available, 1)));
    let error = machine.acknowledge(1, 0, 0, 1, Acknowledge::Accept).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRecordState);
    assert_eq!(take(&mut machine, 1, 1, 500), [(0, 0, 2)]);
    assert_eq!(machine.state(0).map(|(_, deliveries)| deliveries), Some(2));
    // Holds off what is finished from falling off, to look at it.
    let held = machine.acquire(2, want(3, 500, at(60)));
    assert_eq!(held.len(), 1);
    machine.expire(at(30));
    assert_eq!((machine.start(), machine.state(0)), (1, None), "archived, and off the front");
}

#[test]
fn q_09_illegal_transitions_change_nothing() {
    let settle = |machine: &mut Machine, acknowledge| machine.acknowledge(1, 1, 1, 1, acknowledge);
    let all = [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject];
    for (prepare, expected) in [
        (None, "none"),
        (Some(Acknowledge::Release), "available"),
        (Some(Acknowledge::Accept), "acknowledged"),
        (Some(Acknowledge::Reject), "archived"),
    ] {
        let mut machine = Machine::new(0, LIMITS);
        take(&mut machine, 1, if prepare.is_some() { 2 } else { 1 }, 500);
        if let Some(prepare) = prepare {
            settle(&mut machine, prepare).unwrap();
        }
        for acknowledge in all {
            assert_eq!(state_of(&machine, 1), expected);
            let error = settle(&mut machine, acknowledge).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::InvalidRecordState, Some(1)));
            assert_eq!(state_of(&machine, 1), expected);
        }
    }
}

#[test]
fn q_11_the_log_start_moves() {
    let mut machine = Machine::new(2, LIMITS);
    for (n, first) in (2..=32).step_by(5).enumerate() {
        assert_eq!(take(&mut machine, 1, 37, 5), [(first, first + 4, 1)], "batch {n}");
    }
    machine.acknowledge(1, 2, 6, 1, Acknowledge::Accept).unwrap();
    machine.acknowledge(1, 12, 16, 1, Acknowledge::Release).unwrap();
    machine.acknowledge(1, 22, 26, 1, Acknowledge::Release).unwrap();
    machine.acknowledge(1, 27, 31, 1, Acknowledge::Reject).unwrap();
    assert!(machine.move_start(20));
    // Kafka's end offset is the last one acquired.
    assert_eq!((machine.start(), machine.end() - 1, machine.next_fetch()), (20, 36, 22));
    let states: Vec<_> = [7, 11, 12, 16, 17, 19, 20, 21, 22, 26, 27, 31, 32, 36]
        .map(|offset| (offset, state_of(&machine, offset)))
        .to_vec();
    let acquired = |offset: u64| matches!(offset, 7..=11 | 17..=21 | 32..=36);
    for (offset, state) in states {
        let expected = match offset {
            _ if acquired(offset) => "acquired",
            22..=26 => "available",
            _ => "archived",
        };
        assert_eq!(state, expected, "{offset}");
    }
    machine.expire(at(30));
    assert_eq!((machine.start(), state_of(&machine, 7)), (20, "none"), "gone with their locks");
    assert_eq!(machine.next_fetch(), 20, "those of the log come again");
}

#[test]
fn the_window_bounds_what_is_in_flight() {
    let mut machine = Machine::new(0, Limits { window: 10, ..LIMITS });
    assert_eq!(take(&mut machine, 1, 100, 500), [(0, 9, 1)]);
    assert!(!machine.has_work(100));
    machine.acknowledge(1, 1, 9, 1, Acknowledge::Accept).unwrap();
    assert_eq!(take(&mut machine, 1, 100, 500), [], "the first record holds up the window");
    machine.acknowledge(1, 0, 0, 1, Acknowledge::Accept).unwrap();
    assert_eq!(take(&mut machine, 1, 100, 500), [(10, 19, 1)]);
}

/// In one process a record that kills its worker kills all of them: whoever is given one on its last delivery gets
/// nothing else, so that the innocent are not given up with it.
#[test]
fn a_last_delivery_comes_alone() {
    let mut machine = Machine::new(0, Limits { deliveries: 3, ..LIMITS });
    for deliveries in 1..=2 {
        assert_eq!(take(&mut machine, 1, 3, 500), [(0, 2, deliveries)]);
        machine.leave(1);
    }
    let not_alone = Want { alone: false, ..want(9, 500, at(0)) };
    assert_eq!(machine.acquire(1, not_alone), []);
    for offset in 0..3 {
        assert_eq!(take(&mut machine, 1, 9, 500), [(offset, offset, 3)]);
    }
    machine.leave(1);
    assert_eq!(machine.start(), 3, "three deliveries, all in vain");
    assert_eq!(take(&mut machine, 1, 9, 500), [(3, 8, 1)]);
    // With one delivery only there is no last one among many.
    let mut machine = Machine::new(0, Limits { deliveries: 1, ..LIMITS });
    assert_eq!(take(&mut machine, 1, 3, 500), [(0, 2, 1)]);
}

#[test]
fn letters_are_taken_once_until_they_are_copied() {
    let mut machine = Machine::new(0, Limits { letters: true, ..LIMITS });
    take(&mut machine, 1, 3, 500);
    machine.acknowledge(1, 0, 1, 1, Acknowledge::Reject).unwrap();
    assert!(machine.has_letters() && machine.start() == 0);
    let letters = machine.take_letters();
    assert_eq!((letters.len(), letters[0].1, letters[0].0.last), (1, Reason::Rejected, 1));
    assert!(machine.take_letters().is_empty() && !machine.has_letters());
    machine.bury(0, 0, true);
    machine.bury(1, 1, false);
    assert_eq!((machine.start(), machine.take_letters().len()), (1, 1));
    machine.bury(1, 1, true);
    assert_eq!(machine.start(), 2);
}

#[test]
fn what_nobody_saw_was_not_delivered() {
    let mut machine = Machine::new(0, LIMITS);
    take(&mut machine, 1, 10, 500);
    machine.skip(1, 0, 3);
    machine.unread(1, 8, 9);
    assert_eq!((machine.start(), machine.state(8)), (4, Some((State::Available, 0))));
    assert_eq!(take(&mut machine, 2, 10, 500), [(8, 9, 1)]);
}

#[test]
fn a_restored_machine_goes_on() {
    let stretch = |first, last, deliveries| Stretch { first, last, state: State::Available, deliveries };
    let saved = [stretch(10, 11, 1), stretch(14, 14, 5), stretch(16, 19, 2)];
    let mut machine = Machine::restore(10, 20, &saved, 18, LIMITS);
    assert_eq!((machine.start(), machine.end()), (10, 18), "what the log lost is not remembered");
    assert_eq!(state_of(&machine, 14), "archived", "it had all its deliveries");
    assert_eq!(take(&mut machine, 1, 20, 500), [(10, 11, 2), (16, 17, 3), (18, 19, 1)]);
    let mut machine = Machine::restore(10, 20, &saved, 4, LIMITS);
    assert_eq!(take(&mut machine, 1, 6, 500), [(4, 5, 1)], "the log begins anew below");
}

/// The simplest model: one entry per offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Free(u16),
    Held(u16, MemberId, u64),
    Done,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % n
    }
}

struct Model {
    entries: Vec<Entry>,
    floor: usize,
    max: u16,
}

impl Model {
    fn freed(&self, offset: usize, deliveries: u16) -> Entry {
        if offset < self.floor || deliveries >= self.max { Entry::Done } else { Entry::Free(deliveries) }
    }

    fn expire(&mut self, now: u64) {
        for offset in 0..self.entries.len() {
            if let Entry::Held(deliveries, _, until) = self.entries[offset]
                && until <= now
            {
                self.entries[offset] = self.freed(offset, deliveries);
            }
        }
    }

    fn start(&self) -> usize {
        let open = |o: &usize| self.entries[*o] != Entry::Done;
        (self.floor..self.entries.len()).find(open).unwrap_or(self.entries.len())
    }

    fn acquire(
        &mut self,
        member: MemberId,
        limit: usize,
        room: usize,
        window: usize,
        until: u64,
    ) -> Vec<(u64, u16)> {
        let mut out = Vec::new();
        for offset in 0..self.entries.len() {
            let Entry::Free(deliveries) = self.entries[offset] else { continue };
            let last = deliveries > 0 && deliveries + 1 >= self.max;
            if out.len() == room || (last && !out.is_empty()) {
                return out;
            }
            self.entries[offset] = Entry::Held(deliveries + 1, member, until);
            out.push((offset as u64, deliveries + 1));
            if last {
                return out;
            }
        }
        let to = limit.min(self.start() + window);
        while self.entries.len() < to && out.len() < room {
            out.push((self.entries.len() as u64, 1));
            self.entries.push(Entry::Held(1, member, until));
        }
        out
    }
}

#[test]
fn the_machine_does_what_the_simplest_model_does() {
    let seed: u64 = std::env::var("TAPELOG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    for round in 0..60 {
        let mut random = Random(seed * 1_000 + round + 1);
        let (max, window) = (1 + random.below(4) as u16, 1 + random.below(40) as usize);
        let limits = Limits { deliveries: max, window: window as u64, letters: false };
        let mut machine = Machine::new(0, limits);
        let mut model = Model { entries: Vec::new(), floor: 0, max };
        let (mut limit, mut now) = (0, 0);
        for step in 0..400 {
            let context = format!("TAPELOG_SEED={seed}, round {round}, step {step}");
            let member = 1 + random.below(3);
            match random.below(8) {
                0 => limit += random.below(10) as usize,
                1 | 2 => {
                    let room = 1 + random.below(12) as usize;
                    let until = now + 5;
                    let want = Want { limit: limit as u64, records: room, alone: true, until: at(until) };
                    let got = machine.acquire(member, want);
                    let got: Vec<_> =
                        got.iter().flat_map(|s| (s.first..=s.last).map(|o| (o, s.deliveries))).collect();
                    assert_eq!(got, model.acquire(member, limit, room, window, until), "{context}");
                }
                3..=5 => {
                    let first = random.below(model.entries.len() as u64 + 2) as usize;
                    let last = first + random.below(4) as usize;
                    let deliveries = 1 + random.below(u64::from(max)) as u16;
                    let acknowledge = [Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject]
                        [random.below(3) as usize];
                    let held = |o: usize| matches!(model.entries.get(o), Some(Entry::Held(d, m, _)) if (*d, *m) == (deliveries, member));
                    let legal = (first..=last).all(held);
                    let got = machine.acknowledge(member, first as u64, last as u64, deliveries, acknowledge);
                    assert_eq!(got.is_ok(), legal, "{context}");
                    for offset in (first..=last).filter(|_| legal) {
                        model.entries[offset] = match acknowledge {
                            Acknowledge::Release => model.freed(offset, deliveries),
                            _ => Entry::Done,
                        };
                    }
                }
                6 => {
                    now += random.below(4);
                    machine.expire(at(now));
                    model.expire(now);
                }
                _ if random.below(4) == 0 => {
                    let to = (model.floor + random.below(5) as usize).min(limit);
                    machine.move_start(to as u64);
                    model.floor = model.floor.max(to);
                    while model.entries.len() < to {
                        model.entries.push(Entry::Done);
                    }
                    for offset in 0..to {
                        if let Entry::Free(_) = model.entries[offset] {
                            model.entries[offset] = Entry::Done;
                        }
                    }
                }
                _ => {
                    machine.leave(member);
                    for offset in 0..model.entries.len() {
                        if let Entry::Held(deliveries, holder, _) = model.entries[offset]
                            && holder == member
                        {
                            model.entries[offset] = model.freed(offset, deliveries);
                        }
                    }
                }
            }
            assert_eq!(machine.start(), model.start() as u64, "{context}");
            assert_eq!(machine.end(), model.entries.len() as u64, "{context}");
            for (offset, entry) in (0u64..).zip(&model.entries) {
                let same = match (machine.state(offset), *entry) {
                    (Some((State::Available, d)), Entry::Free(deliveries)) => d == deliveries,
                    (Some((State::Acquired { member, until }, d)), Entry::Held(deliveries, holder, end)) => {
                        (d, member, until) == (deliveries, holder, at(end))
                    }
                    (None | Some((State::Acknowledged | State::Archived, _)), Entry::Done) => true,
                    _ => false,
                };
                assert!(same, "{context}: {offset} is {:?}, not {entry:?}", machine.state(offset));
            }
        }
    }
}
