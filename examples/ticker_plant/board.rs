//! The board: the last price of each symbol.
//!
//! A symbol shows its last trade; until it has traded, its last quote. Other rows move nothing.

use std::collections::BTreeMap;

use super::group::{Delivered, Job};
use super::tick::Tick;

/// One line of the board.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Last {
    pub(crate) price: String,
    pub(crate) ts_event_ns: String,
    pub(crate) traded: bool,
    pub(crate) ticks: u64,
}

/// The last price of each symbol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Board {
    pub(crate) lines: BTreeMap<String, Last>,
}

impl Board {
    /// Takes the next tick of its symbol.
    pub(crate) fn tick(&mut self, tick: &Tick<'_>) {
        let line = match self.lines.get_mut(tick.symbol) {
            Some(line) => line,
            None => self.lines.entry(tick.symbol.to_owned()).or_default(),
        };
        line.ticks += 1;
        let trade = tick.action == "trade";
        if tick.price.is_empty() || !(trade || tick.action == "quote" && !line.traded) {
            return;
        }
        line.traded = trade;
        for (into, text) in [(&mut line.price, tick.price), (&mut line.ts_event_ns, tick.ts_event_ns)] {
            into.clear();
            into.push_str(text);
        }
    }

    /// In how many symbols the two differ.
    pub(crate) fn differences(&self, other: &Board) -> u64 {
        let symbols = self.lines.keys().chain(other.lines.keys().filter(|s| !self.lines.contains_key(*s)));
        symbols.filter(|s| self.lines.get(*s) != other.lines.get(*s)).count() as u64
    }
}

impl Job for Board {
    fn take(&mut self, record: &Delivered<'_>) -> bool {
        let tick = record.value.and_then(Tick::read);
        tick.inspect(|tick| self.tick(tick)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(symbol: &'static str, action: &'static str, price: &'static str) -> Tick<'static> {
        Tick { ts_event_ns: "1", symbol, action, side: "B", price, size: "1", sequence: "1" }
    }

    #[test]
    fn shows_the_last_trade_or_else_the_last_quote() {
        let mut board = Board::default();
        for t in [
            tick("EURUSD", "quote", "1.10"),
            tick("EURUSD", "quote", "1.11"),
            tick("ES", "quote", "10"),
            tick("ES", "trade", "11.00"),
            tick("ES", "quote", "12"),
            tick("ES", "add", "13"),
            tick("ES", "trade", ""),
            tick("CL", "add", "70"),
        ] {
            board.tick(&t);
        }
        let price = |symbol: &str| board.lines[symbol].price.as_str();
        assert_eq!((price("EURUSD"), price("ES"), price("CL")), ("1.11", "11.00", ""));
        assert_eq!(board.lines["ES"].ticks, 5);

        let mut other = board.clone();
        assert_eq!(board.differences(&other), 0);
        other.tick(&tick("ES", "trade", "14"));
        other.tick(&tick("NQ", "trade", "14"));
        assert_eq!((board.differences(&other), other.differences(&board)), (2, 2));
    }
}
