//! One-minute bars per symbol in event time, with exact decimals.
//!
//! Bars are of `trade` rows only: open, high, low, close, volume, and the volume-weighted average price. A
//! symbol that has quotes and no trades gets bars of its quoted prices, both sides, with volume 0 and no
//! average; its first trade throws those away. Rows without a price are passed over.
//!
//! Rows arrive out of time order between symbols, and one symbol's time starts anew when the source does; so
//! a bar is found by its minute, its open is the earliest of its rows and its close the latest (of rows at
//! the same instant: the first to arrive, and the last).

use std::collections::BTreeMap;

use super::decimal::Decimal;
use super::group::{Delivered, Job};
use super::tick::Tick;

const MINUTE_NS: i64 = 60_000_000_000;

/// One minute of one symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bar {
    pub(crate) open: Decimal,
    pub(crate) high: Decimal,
    pub(crate) low: Decimal,
    pub(crate) close: Decimal,
    pub(crate) volume: Option<Decimal>,
    /// Sum of price times size; `None` once it outgrew 38 digits: exact or absent.
    notional: Option<Decimal>,
    pub(crate) rows: u64,
    open_ns: i64,
    close_ns: i64,
}

impl Bar {
    fn new(ts: i64, price: Decimal) -> Bar {
        Bar {
            open: price,
            high: price,
            low: price,
            close: price,
            volume: Some(Decimal::ZERO),
            notional: Some(Decimal::ZERO),
            rows: 0,
            open_ns: ts,
            close_ns: ts,
        }
    }

    fn add(&mut self, ts: i64, price: Decimal, size: Decimal) {
        if ts < self.open_ns {
            (self.open_ns, self.open) = (ts, price);
        }
        if ts >= self.close_ns {
            (self.close_ns, self.close) = (ts, price);
        }
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.volume = self.volume.and_then(|sum| sum.checked_add(size));
        self.notional = self.notional.and_then(|sum| sum.checked_add(price.checked_mul(size)?));
        self.rows += 1;
    }

    /// The volume-weighted average price, with four places more than the prices have.
    pub(crate) fn vwap(&self) -> Option<Decimal> {
        let volume = self.volume.filter(|v| !v.is_zero())?;
        self.notional?.divide(volume, self.close.scale() + 4)
    }
}

/// The bars of one symbol, by the start of their minute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Series {
    pub(crate) bars: BTreeMap<i64, Bar>,
    pub(crate) traded: bool,
}

/// The bars of all symbols.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bars {
    pub(crate) symbols: BTreeMap<String, Series>,
}

impl Bars {
    /// Takes the next tick of its symbol; `false` where a number in it cannot be read.
    pub(crate) fn tick(&mut self, tick: &Tick<'_>) -> bool {
        let trade = tick.action == "trade";
        if tick.price.is_empty() || !(trade || tick.action == "quote") {
            return true;
        }
        let (Some(ts), Some(price), Some(size)) =
            (tick.nanos(), Decimal::parse(tick.price), Decimal::parse(tick.size))
        else {
            return false;
        };
        let series = match self.symbols.get_mut(tick.symbol) {
            Some(series) => series,
            None => self.symbols.entry(tick.symbol.to_owned()).or_default(),
        };
        if trade && !series.traded {
            series.bars.clear();
            series.traded = true;
        }
        if trade == series.traded {
            let minute = ts - ts.rem_euclid(MINUTE_NS);
            let bar = series.bars.entry(minute).or_insert_with(|| Bar::new(ts, price));
            bar.add(ts, price, if trade { size } else { Decimal::ZERO });
        }
        true
    }

    /// How many bars differ between the two.
    pub(crate) fn differences(&self, other: &Bars) -> u64 {
        let none = Series::default();
        let symbols =
            self.symbols.keys().chain(other.symbols.keys().filter(|s| !self.symbols.contains_key(*s)));
        symbols
            .map(|symbol| {
                let a = &self.symbols.get(symbol).unwrap_or(&none).bars;
                let b = &other.symbols.get(symbol).unwrap_or(&none).bars;
                let minutes = a.keys().chain(b.keys().filter(|m| !a.contains_key(*m)));
                minutes.filter(|m| a.get(*m) != b.get(*m)).count() as u64
            })
            .sum()
    }
}

impl Job for Bars {
    fn take(&mut self, record: &Delivered<'_>) -> bool {
        record.value.and_then(Tick::read).is_some_and(|tick| self.tick(&tick))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(rows: &[(&str, &str, i64, &str, &str)]) -> Bars {
        let mut bars = Bars::default();
        for (symbol, action, ts, price, size) in rows {
            let ts = ts.to_string();
            let tick = Tick { ts_event_ns: &ts, symbol, action, side: "B", price, size, sequence: "1" };
            assert!(bars.tick(&tick));
        }
        bars
    }

    fn line(bar: &Bar) -> String {
        let text = |d: Option<Decimal>| d.map_or("-".to_owned(), |d| d.to_string());
        format!(
            "{} {} {} {} {} {}",
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            text(bar.volume),
            text(bar.vwap())
        )
    }

    const M: i64 = MINUTE_NS;

    #[test]
    fn adds_trades_up_exactly() {
        let bars = bars(&[
            ("BTC", "trade", 0, "39432.48", "0.000263"),
            ("BTC", "add", 1, "99999.99", "5"),
            ("BTC", "trade", 2, "39439.44", "0.004376"),
            ("BTC", "trade", 3, "", "1"),
            ("BTC", "quote", 4, "1.00", "0"),
            ("BTC", "trade", M - 1, "39430.00", "0"),
            ("BTC", "trade", M, "39431.00", "0"),
        ]);
        let series = &bars.symbols["BTC"];
        assert_eq!(series.bars.len(), 2);
        // (39432.48 * 0.000263 + 39439.44 * 0.004376) / 0.004639
        assert_eq!(line(&series.bars[&0]), "39432.48 39439.44 39430.00 39430.00 0.004639 39439.045415");
        assert_eq!(line(&series.bars[&M]), "39431.00 39431.00 39431.00 39431.00 0 -");
    }

    #[test]
    fn quotes_make_bars_until_a_symbol_trades() {
        let quotes =
            [("E", "quote", 0, "1.10", "7"), ("E", "quote", 1, "1.12", "7"), ("E", "quote", 2, "1.11", "0")];
        let only = bars(&quotes);
        assert_eq!(line(&only.symbols["E"].bars[&0]), "1.10 1.12 1.10 1.11 0 -");
        let mut rows = quotes.to_vec();
        rows.push(("E", "trade", 3, "1.20", "2"));
        rows.push(("E", "quote", 4, "9.99", "2"));
        let traded = bars(&rows);
        assert_eq!(line(&traded.symbols["E"].bars[&0]), "1.20 1.20 1.20 1.20 2 1.200000");
        assert_eq!(only.differences(&traded), 1);
        assert_eq!(only.differences(&Bars::default()), 1);
        assert_eq!(only.differences(&only.clone()), 0);
    }

    #[test]
    fn finds_its_minute_when_time_goes_back() {
        let once =
            [("A", "trade", 5, "10", "1"), ("B", "trade", -1, "7", "1"), ("A", "trade", M + 1, "12", "1")];
        let twice = bars(&[once, once].concat());
        assert_eq!(line(&twice.symbols["A"].bars[&0]), "10 10 10 10 2 10.0000");
        assert_eq!(line(&twice.symbols["A"].bars[&M]), "12 12 12 12 2 12.0000");
        assert_eq!(line(&twice.symbols["B"].bars[&-M]), "7 7 7 7 2 7.0000");
        let mixed =
            bars(&[("A", "trade", 5, "10", "1"), ("A", "trade", 3, "9", "1"), ("A", "trade", 5, "11", "1")]);
        assert_eq!(line(&mixed.symbols["A"].bars[&0]), "9 11 9 11 3 10.0000");
    }
}
