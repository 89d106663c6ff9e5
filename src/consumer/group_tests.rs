//! The coordinator under a scheduler: three consumers that join, poll step by step, read, commit, leave, crash and
//! come back, in 100,000 orders, each named by its seed.

use crate::consumer::assignor::{Assignor, Range, RoundRobin, Sticky};
use crate::consumer::group::*;
use crate::log::Log;
use crate::log::catalog::TopicConfig;

const PARTITIONS: usize = 4;
const INTERVAL: Duration = Duration::from_millis(1000);

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Where a consumer is in its poll.
#[derive(Debug, PartialEq)]
enum At {
    /// Outside of it.
    Home,
    /// About to ask what to do.
    Asks,
    /// About to release what it gave up.
    Releases(Vec<Place>),
}

/// A consumer, as far as the group is concerned: its positions stand for what it has read.
struct Model {
    options: Options,
    signal: Arc<Signal>,
    seat: Option<Arc<Seat>>,
    parts: BTreeMap<Place, u64>,
    at: At,
    /// Of the plan that it follows in this poll, and of the last one that it followed to the end.
    following: u64,
    followed: Option<u64>,
}

struct Play<'a> {
    log: &'a LogCore,
    group: Group,
    now: Timestamp,
    ids: u32,
    models: Vec<Model>,
    committed: BTreeMap<Place, u64>,
    /// Seats that somebody lost without knowing, with what was read there.
    ghosts: Vec<(Arc<Seat>, Place, u64)>,
}

impl Play<'_> {
    fn join(&mut self, who: usize) {
        self.ids += 1;
        let model = &mut self.models[who];
        let id = format!("member-{:08}", self.ids).into();
        let topics = Subscription::Topics(BTreeSet::from(["t".to_owned()]));
        let seat = self.group.join(id, &model.options, topics, &model.signal, self.now).unwrap();
        (model.seat, model.at, model.followed) = (Some(seat), At::Home, None);
    }

    /// One step of a poll.
    fn poll(&mut self, who: usize) {
        let model = &mut self.models[who];
        let Some(seat) = model.seat.clone() else { return self.join(who) };
        let inside = model.at != At::Home;
        if !inside {
            self.group.look(self.now);
            seat.enter();
            model.at = At::Asks;
            if seat.fate() == Fate::Seated {
                if model.followed == Some(self.group.change()) {
                    seat.exit(self.now);
                    model.at = At::Home;
                } else {
                    model.following = self.group.refresh(self.log).unwrap();
                }
                return;
            }
        }
        if let At::Releases(places) = &model.at {
            self.group.release(&seat, places);
            model.parts.retain(|place, _| !places.contains(place));
            model.at = At::Asks;
            return;
        }
        match self.group.step(&seat) {
            Ok(Step::GiveUp(places)) => model.at = At::Releases(places),
            Ok(Step::Take(places)) => {
                for place in places {
                    let committed = self.committed.get(&place).copied().unwrap_or(0);
                    model.parts.entry(place).or_insert(committed);
                }
                seat.exit(self.now);
                model.at = At::Home;
                model.followed = Some(model.following);
            }
            Err(e) => {
                assert!(!inside, "who is inside of a poll is not silent");
                assert_eq!((e.kind(), seat.fate()), (ErrorKind::UnknownMemberId, Fate::TimedOut));
                (model.seat, model.at) = (None, At::Home);
                model.parts.clear();
            }
        }
    }

    /// A commit of all positions, from wherever the consumer is.
    fn commit(&mut self, who: usize) {
        let model = &self.models[who];
        let Some(seat) = &model.seat else { return };
        let entry = |(place, offset): (&Place, &u64)| Entry {
            topic_id: place.topic_id,
            tp: place.tp.clone(),
            offset: *offset,
            metadata: None,
        };
        let entries: Vec<Entry> = model.parts.iter().map(entry).collect();
        self.group.look(self.now);
        match self.group.check_commit(Some(seat), &entries, self.now) {
            Ok(()) => {
                for (place, offset) in &model.parts {
                    let before = self.committed.insert(place.clone(), *offset).unwrap_or(0);
                    assert!(*offset >= before, "a commit of {before} was lost to one of {offset}");
                }
            }
            Err(e) => assert_eq!((e.kind(), seat.fate()), (ErrorKind::CommitFailed, Fate::TimedOut)),
        }
    }

    /// A commit of any place: only who owns it may make one, and who is about to is told to wait.
    fn trespass(&self, who: usize, random: &mut Random) {
        let Some(seat) = &self.models[who].seat else { return };
        let state = self.group.state.lock();
        let targets = state.members.values().flat_map(|member| &member.target);
        let all: BTreeSet<Place> = state.owned.keys().chain(targets).cloned().collect();
        let Some(place) = all.iter().nth(random.below(PARTITIONS as u64) as usize) else { return };
        let owns = state.owned.get(place) == Some(&seat.id);
        let will = state.members.get(&seat.id).is_some_and(|member| member.target.contains(place));
        drop(state);
        let entry = Entry { topic_id: place.topic_id, tp: place.tp.clone(), offset: 0, metadata: None };
        let allowed = self.group.check_commit(Some(seat), &[entry], self.now);
        let expected = match (seat.fate() == Fate::Seated, owns, will) {
            (true, true, _) => None,
            (true, false, true) => Some(ErrorKind::RebalanceInProgress),
            _ => Some(ErrorKind::CommitFailed),
        };
        assert_eq!(allowed.err().map(|e| e.kind()), expected, "{place:?}");
    }

    /// The consumer goes: in order, or (a dynamic member) without a word.
    fn go(&mut self, who: usize, crash: bool) {
        let model = &mut self.models[who];
        if let Some(seat) = model.seat.take() {
            self.ghosts.extend(
                model.parts.iter().map(|(place, offset)| (Arc::clone(&seat), place.clone(), *offset)),
            );
            if crash {
                seat.exit(self.now);
            } else if seat.instance_id.is_some() {
                self.group.step_away(&seat, self.now);
            } else {
                self.group.leave(&seat, self.now);
            }
        }
        model.parts.clear();
        model.at = At::Home;
    }

    /// Another consumer with the same instance id comes while the first one still believes to be the member.
    fn replace(&mut self, who: usize) {
        let model = &mut self.models[who];
        let Some(seat) = model.seat.clone().filter(|seat| seat.instance_id.is_some()) else { return };
        let left = std::mem::take(&mut model.parts);
        self.join(who);
        let replaced = seat.fate() == Fate::Replaced;
        assert!(replaced || seat.fate() == Fate::TimedOut);
        self.ghosts.extend(left.into_iter().map(|(place, offset)| (Arc::clone(&seat), place, offset)));
    }

    /// What is gone commits and gives up what it had: nothing happens.
    fn haunt(&mut self, random: &mut Random) {
        if self.ghosts.is_empty() {
            return;
        }
        let at = random.below(self.ghosts.len() as u64) as usize;
        let (seat, place, offset) = self.ghosts.swap_remove(at);
        if seat.fate() == Fate::Seated {
            return; // crashed, and not missed yet
        }
        let entry = Entry { topic_id: place.topic_id, tp: place.tp.clone(), offset, metadata: None };
        assert!(self.group.check_commit(Some(&seat), &[entry], self.now).is_err());
        let owned = self.group.state.lock().owned.clone();
        self.group.release(&seat, &[place]);
        self.group.leave(&seat, self.now);
        self.group.step_away(&seat, self.now);
        assert_eq!(self.group.state.lock().owned, owned);
    }

    /// What a consumer that is a member reads is its own, and so nobody else's.
    fn check(&self) {
        let state = self.group.state.lock();
        for model in &self.models {
            let Some(seat) = model.seat.as_ref().filter(|seat| seat.fate() == Fate::Seated) else { continue };
            for place in model.parts.keys() {
                assert_eq!(state.owned.get(place), Some(&seat.id), "{place:?}");
            }
        }
        assert!(state.owned.values().all(|owner| state.members.contains_key(owner)), "owned by nobody");
    }

    /// Everybody polls; who is silent for good is missed after an interval.
    fn settle(&mut self) {
        for _ in 0..4 {
            for who in 0..self.models.len() {
                if self.models[who].seat.is_some() {
                    self.poll(who);
                    while self.models[who].at != At::Home || self.models[who].seat.is_none() {
                        self.poll(who);
                    }
                    self.check();
                }
            }
            self.now = self.now.saturating_add(INTERVAL / 2);
        }
        self.group.look(self.now);
        for who in 0..self.models.len() {
            for _ in 0..20 {
                if self.models[who].seat.is_some() {
                    self.poll(who);
                }
            }
        }
    }
}

fn play(log: &LogCore, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let models = (0..3).map(|n| Model {
        options: Options {
            max_poll_interval: INTERVAL,
            session_timeout: INTERVAL,
            instance_id: (random.below(3) == 0).then(|| format!("i{n}")),
            ..Options::default()
        },
        signal: Arc::default(),
        seat: None,
        parts: BTreeMap::new(),
        at: At::Home,
        following: 0,
        followed: None,
    });
    let models = models.collect();
    let (committed, ghosts) = (BTreeMap::new(), Vec::new());
    let now = Timestamp::from_millis(0);
    let mut play = Play { log, group: Group::new("g", &log.engine), now, ids: 0, models, committed, ghosts };
    match random.below(16) {
        0 => {} // cooperative sticky, which takes most of the time
        1 => play.group.set_assignor(Named::new(Sticky)),
        2..8 => play.group.set_assignor(Named::new(RoundRobin)),
        _ => play.group.set_assignor(Named::new(Range)),
    }
    for _ in 0..30 {
        let who = random.below(3) as usize;
        match random.below(32) {
            0 => play.go(who, false),
            1 => play.go(who, true),
            2 => play.replace(who),
            3 => play.haunt(&mut random),
            4..=6 => play.now = play.now.saturating_add(Duration::from_millis(random.below(700))),
            7..=10 => play.models[who].parts.values_mut().for_each(|position| *position += 1),
            11..=13 => play.commit(who),
            14 => play.trespass(who, &mut random),
            _ => play.poll(who),
        }
        play.check();
    }
    play.settle();
    play.check();
    let alive: Vec<_> = play.models.iter().filter(|model| model.seat.is_some()).collect();
    let read: BTreeSet<&Place> = alive.iter().flat_map(|model| model.parts.keys()).collect();
    let all = if alive.is_empty() { 0 } else { PARTITIONS };
    assert_eq!(read.len(), all, "orphaned");
    assert_eq!(alive.iter().map(|model| model.parts.len()).sum::<usize>(), all, "owned twice");
    let state = play.group.state.lock();
    assert_eq!(state.members.len(), alive.len());
    assert_eq!(state.stage(), if alive.is_empty() { GroupState::Empty } else { GroupState::Stable });
}

#[test]
fn a_hundred_thousand_orders_of_joining_polling_crashing_and_committing() {
    let log = Log::in_memory().unwrap();
    log.create_topic("t", TopicConfig::new().partitions(PARTITIONS as u32)).unwrap();
    for seed in 1..=100_000 {
        let played = catch_unwind(AssertUnwindSafe(|| play(&log.core, seed)));
        assert!(played.is_ok(), "seed {seed}");
    }
}

/// Does something while it makes a plan: what a member on another thread may do just then.
struct Meanwhile(Arc<Mutex<Option<Deed>>>);

type Deed = Box<dyn FnOnce() + Send>;

impl Assignor for Meanwhile {
    fn name(&self) -> &str {
        "meanwhile"
    }

    fn assign(&self, facts: &GroupFacts) -> BTreeMap<String, Vec<TopicPartition>> {
        if let Some(deed) = self.0.lock().take() {
            deed();
        }
        CooperativeSticky.assign(facts)
    }
}

/// A plan was made while a member let go of a partition that was to move: it took the partition for owned and
/// gave it to nobody, and as nothing changed after that, nobody ever read it again. The same for a member that left.
#[test]
fn what_is_freed_while_a_plan_is_made_is_not_forgotten() {
    for leaves in [false, true] {
        let log = Log::in_memory().unwrap();
        log.create_topic("t", TopicConfig::new().partitions(PARTITIONS as u32)).unwrap();
        let group = Arc::new(Group::new("g", &log.core.engine));
        let slot = Arc::new(Mutex::new(None));
        group.set_assignor(Named::new(Meanwhile(Arc::clone(&slot))));
        let now = Timestamp::from_millis(0);
        let join = |id: &str| {
            let topics = Subscription::Topics(BTreeSet::from(["t".to_owned()]));
            group.join(id.into(), &Options::default(), topics, &Arc::default(), now).unwrap()
        };
        let steps = |seat: &Arc<Seat>| {
            group.refresh(&log.core).unwrap();
            while let Step::GiveUp(places) = group.step(seat).unwrap() {
                group.release(seat, &places);
            }
        };
        let a = join("a");
        steps(&a);
        let b = join("b");
        group.refresh(&log.core).unwrap();
        let Step::GiveUp(places) = group.step(&a).unwrap() else { panic!("a has all") };
        let c = join("c");
        let (of_a, of_group) = (Arc::clone(&a), Arc::clone(&group));
        *slot.lock() = Some(Box::new(move || match leaves {
            true => of_group.leave(&of_a, now),
            false => of_group.release(&of_a, &places),
        }));
        let members = if leaves { vec![&b, &c] } else { vec![&b, &a, &c] };
        for _ in 0..3 {
            members.iter().for_each(|seat| steps(seat));
        }
        let state = group.state.lock();
        assert_eq!((state.owned.len(), state.stage()), (PARTITIONS, GroupState::Stable), "{leaves}");
    }
}
