//! The simulated feed: eight symbols, and each tick a pure function of seed and n.
//!
//! A price that can be computed for any n without walking there cannot be a random walk. It is the sum of
//! four octaves of value noise instead: from afar it moves like one.

use std::fmt::Write as _;

use super::tick::Tick;

struct Instrument {
    symbol: &'static str,
    /// Of 64 ticks, about so many are of this symbol.
    weight: u32,
    /// The price in the middle and the step between two prices, both in units of `10^-places`.
    middle: i64,
    step: i64,
    places: usize,
    /// Places of a size.
    size_places: usize,
    /// Quotes only: both sides, no trades.
    quotes_only: bool,
}

impl Instrument {
    const fn new(symbol: &'static str, weight: u32, (middle, step, places): (i64, i64, usize)) -> Self {
        Instrument { symbol, weight, middle, step, places, size_places: 0, quotes_only: false }
    }
}

const INSTRUMENTS: [Instrument; 8] = [
    Instrument::new("ES", 20, (480_000, 25, 2)),
    Instrument::new("NQ", 12, (1_685_000, 25, 2)),
    Instrument::new("CL", 6, (7_350, 1, 2)),
    Instrument::new("GC", 5, (20_650, 1, 1)),
    Instrument::new("AAPL", 5, (19_350, 1, 2)),
    Instrument { size_places: 6, ..Instrument::new("BTCUSDT", 6, (4_310_000, 1, 2)) },
    Instrument { size_places: 5, ..Instrument::new("ETHUSDT", 4, (227_000, 1, 2)) },
    Instrument { quotes_only: true, ..Instrument::new("EURUSD", 6, (109_400, 1, 5)) },
];

/// Event time of tick 0, and the mean distance to the next: 1,000 ticks a second.
const BEGIN_NS: i64 = 1_703_422_800_000_000_000;
const STEP_NS: i64 = 1_000_000;

/// The texts of one simulated row, kept between rows so that making one allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    text: String,
}

/// A mix of two numbers in which each bit depends on all of theirs (the finalizer of splitmix64).
fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Value noise around 0 at position `n`: a few hundred steps wide.
fn wave(seed: u64, n: u64) -> i64 {
    [(6, 4), (10, 24), (14, 96), (18, 384)]
        .into_iter()
        .map(|(bits, height): (u32, i64)| {
            let at =
                |cell: u64| (mix(seed ^ u64::from(bits), cell) % (2 * height as u64 + 1)) as i64 - height;
            let (cell, inside) = (n >> bits, (n & ((1 << bits) - 1)) as i64);
            let (from, to) = (at(cell), at(cell + 1));
            from + (((to - from) * inside) >> bits)
        })
        .sum()
}

fn instrument(seed: u64, n: u64) -> &'static Instrument {
    let mut at = (mix(seed, n) % 64) as u32;
    for instrument in &INSTRUMENTS {
        match at.checked_sub(instrument.weight) {
            Some(rest) => at = rest,
            None => return instrument,
        }
    }
    &INSTRUMENTS[0]
}

/// The symbol of tick `n`, without the rest of it.
pub(crate) fn symbol(seed: u64, n: u64) -> &'static str {
    instrument(seed, n).symbol
}

/// Tick `n` of the feed that `seed` names.
pub(crate) fn tick(seed: u64, n: u64, texts: &mut Texts) -> Tick<'_> {
    let what = instrument(seed, n);
    let dice = mix(seed ^ 0x7469_636b, n);
    let ts = BEGIN_NS + n as i64 * STEP_NS + (dice % STEP_NS as u64) as i64;
    let side_of_quote = if dice >> 63 == 0 { "B" } else { "A" };
    let (action, side) = match (dice >> 32) % 100 {
        _ if what.quotes_only => ("quote", side_of_quote),
        0..45 => ("add", side_of_quote),
        45..70 => ("cancel", side_of_quote),
        70..80 => ("modify", side_of_quote),
        80..99 => ("trade", side_of_quote),
        _ => ("trade", "N"),
    };
    // Bids lie below the middle and offers above it, up to seven steps; a trade happens beside it.
    let distance = if action == "trade" { 0 } else { (dice >> 40) as i64 % 8 };
    let steps = wave(seed ^ what.middle as u64, n) + if side == "B" { -distance } else { distance + 1 };
    let units = what.middle + steps * what.step;
    let lots = 1 + (dice >> 48) % 20 * ((dice >> 53) % 5);

    let text = &mut texts.text;
    text.clear();
    let mut ends = [0; 4];
    let _ = write!(text, "{ts}");
    ends[0] = text.len();
    // Now and then somebody cancels without saying at which price.
    if action != "cancel" || !dice.is_multiple_of(64) {
        decimal(text, units as u64, what.places);
    }
    ends[1] = text.len();
    if action != "quote" {
        decimal(text, if what.size_places == 0 { lots } else { lots * 1_000 + dice % 997 }, what.size_places);
    } else {
        text.push('0');
    }
    ends[2] = text.len();
    let _ = write!(text, "{n}");
    ends[3] = text.len();

    Tick {
        ts_event_ns: &text[..ends[0]],
        symbol: what.symbol,
        action,
        side,
        price: &text[ends[0]..ends[1]],
        size: &text[ends[1]..ends[2]],
        sequence: &text[ends[2]..ends[3]],
    }
}

fn decimal(out: &mut String, units: u64, places: usize) {
    let one = 10u64.pow(places as u32);
    let _ = match places {
        0 => write!(out, "{units}"),
        _ => write!(out, "{}.{:0places$}", units / one, units % one),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decimal::Decimal;
    use std::collections::BTreeMap;

    fn json(seed: u64, n: u64) -> String {
        let (mut texts, mut out) = (Texts::default(), Vec::new());
        tick(seed, n, &mut texts).write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn is_a_function_of_seed_and_n() {
        assert_eq!(INSTRUMENTS.iter().map(|i| i.weight).sum::<u32>(), 64);
        let mut texts = Texts::default();
        let _ = tick(1, 999, &mut texts);
        assert_eq!(tick(1, 7, &mut texts), tick(1, 7, &mut Texts::default()));
        assert_ne!(json(1, 7), json(2, 7));
        // Pinned: a directory filled by an older build must still audit clean.
        assert_eq!(json(1, 0), PINNED);
    }

    #[test]
    fn looks_like_a_market() {
        let mut texts = Texts::default();
        let mut seen = BTreeMap::<&str, BTreeMap<&str, u64>>::new();
        let (mut last, mut without_price) = (i64::MIN, 0);
        for n in 0..100_000 {
            let tick = tick(1, n, &mut texts);
            assert_eq!(tick.symbol, symbol(1, n));
            let ts = tick.nanos().expect("a number");
            assert!(ts >= last, "time went back at {n}");
            last = ts;
            without_price += u64::from(tick.price.is_empty());
            assert!(tick.price.is_empty() || Decimal::parse(tick.price).is_some(), "{tick:?}");
            assert!(Decimal::parse(tick.size).is_some(), "{tick:?}");
            *seen.entry(symbol(1, n)).or_default().entry(action(tick.action)).or_default() += 1;
        }
        assert_eq!(seen.len(), 8);
        assert!(without_price > 0);
        for (symbol, actions) in seen {
            assert_eq!(actions.contains_key("trade"), symbol != "EURUSD", "{symbol}: {actions:?}");
        }
    }

    fn action(text: &str) -> &'static str {
        ["add", "cancel", "modify", "trade", "quote"].into_iter().find(|a| *a == text).expect("known")
    }

    const PINNED: &str = r#"{"ts_event_ns":1703422800000016531,"symbol":"CL","action":"add","side":"A","price":75.57,"size":73,"sequence":0}"#;
}
