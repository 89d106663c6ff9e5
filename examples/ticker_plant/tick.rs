//! One tick: the texts of a row, and the same as compact JSON.
//!
//! ```text
//! {"ts_event_ns":1703422805243925307,"symbol":"ESH4","action":"add","side":"B","price":4799.00,"size":2,"sequence":682}
//! ```
//!
//! The columns of the row under their names and in their order, no spaces. The JSON keeps the row's texts: a
//! text that is a JSON number stands as it is (`4799.00` stays `4799.00`), any other in quotes (an empty
//! price is `""`). Texts contain neither quotes, backslashes nor control characters, which the source sees
//! to, so there is nothing to escape and each text can be borrowed from the value.

/// A row's texts, borrowed from the source or from a record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick<'a> {
    pub(crate) ts_event_ns: &'a str,
    pub(crate) symbol: &'a str,
    pub(crate) action: &'a str,
    pub(crate) side: &'a str,
    pub(crate) price: &'a str,
    pub(crate) size: &'a str,
    pub(crate) sequence: &'a str,
}

/// What stands before each text, without the quote of those that have one.
const BEFORE: [&str; 7] = [
    "{\"ts_event_ns\":",
    ",\"symbol\":",
    ",\"action\":",
    ",\"side\":",
    ",\"price\":",
    ",\"size\":",
    ",\"sequence\":",
];

impl<'a> Tick<'a> {
    /// The event time as a number; the source has seen to it that there is one.
    pub(crate) fn nanos(&self) -> Option<i64> {
        self.ts_event_ns.parse().ok()
    }

    /// Appends the JSON to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let quoted = |out: &mut Vec<u8>, text: &str| {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        };
        let number = |out: &mut Vec<u8>, text: &str| {
            if is_json_number(text) { out.extend_from_slice(text.as_bytes()) } else { quoted(out, text) }
        };
        for (i, before) in BEFORE.iter().enumerate() {
            out.extend_from_slice(before.as_bytes());
            match i {
                0 => number(out, self.ts_event_ns),
                1 => quoted(out, self.symbol),
                2 => quoted(out, self.action),
                3 => quoted(out, self.side),
                4 => number(out, self.price),
                5 => number(out, self.size),
                _ => number(out, self.sequence),
            }
        }
        out.push(b'}');
    }

    /// Reads what [`Tick::write`] writes, and nothing else.
    pub(crate) fn read(json: &'a [u8]) -> Option<Tick<'a>> {
        let mut rest = std::str::from_utf8(json).ok()?;
        let mut texts = [""; 7];
        for (before, text) in BEFORE.iter().zip(&mut texts) {
            rest = rest.strip_prefix(before)?;
            let (found, after) = match rest.strip_prefix('"') {
                Some(inside) => {
                    let end = inside.bytes().position(|b| b == b'"')?;
                    (&inside[..end], &inside[end + 1..])
                }
                None => {
                    let end = rest.bytes().position(|b| b == b',' || b == b'}')?;
                    (&rest[..end], &rest[end..])
                }
            };
            *text = found;
            rest = after;
        }
        let [ts_event_ns, symbol, action, side, price, size, sequence] = texts;
        (rest == "}").then_some(Tick { ts_event_ns, symbol, action, side, price, size, sequence })
    }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?`: the JSON numbers without an exponent.
fn is_json_number(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Tick<'static> = Tick {
        ts_event_ns: "1703422805243925307",
        symbol: "ESH4",
        action: "add",
        side: "B",
        price: "4799.00",
        size: "2",
        sequence: "682",
    };

    fn json(tick: &Tick<'_>) -> String {
        let mut out = Vec::new();
        tick.write(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn keeps_the_texts() {
        assert_eq!(
            json(&TICK),
            r#"{"ts_event_ns":1703422805243925307,"symbol":"ESH4","action":"add","side":"B","price":4799.00,"size":2,"sequence":682}"#
        );
        for price in ["", "0", "-0.50", ".5", "5.", "007", "4799.00"] {
            let tick = Tick { price, side: "", ..TICK };
            assert_eq!(Tick::read(json(&tick).as_bytes()), Some(tick), "{price}");
        }
        assert!(json(&Tick { price: "", ..TICK }).contains(r#""price":"","#));
        assert!(json(&Tick { price: "007", ..TICK }).contains(r#""price":"007","#));
    }

    #[test]
    fn reads_nothing_else() {
        let good = json(&TICK);
        for cut in 0..good.len() {
            assert_eq!(Tick::read(&good.as_bytes()[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Tick::read(format!("{good} ").as_bytes()), None);
        assert_eq!(Tick::read(good.replace("side", "edge").as_bytes()), None);
        assert_eq!(Tick::read(b"\xff"), None);
    }
}
