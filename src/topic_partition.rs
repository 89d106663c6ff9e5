//! The name of one partition: its topic and its number.

use std::fmt;
use std::sync::Arc;

/// One partition of one topic, by name; shown as `topic-3`.
///
/// A value, not a handle: it says nothing of whether the topic exists. Sorts by topic, then by number.
/// A clone shares the name.
///
/// ```
/// use tapelog::TopicPartition;
///
/// let partition = TopicPartition::new("ticks", 3);
/// assert_eq!((partition.topic(), partition.partition()), ("ticks", 3));
/// assert_eq!(partition.to_string(), "ticks-3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
}

impl TopicPartition {
    /// Partition number `partition`, counted from zero, of `topic`.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, partition: u32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The number within the topic, from zero.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_by_topic_then_by_number() {
        let mut all = [
            TopicPartition::new("b", 0),
            TopicPartition::new("a", 10),
            TopicPartition::new("a", 9),
            TopicPartition::new("a-1", 0),
        ];
        all.sort();
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a-9", "a-10", "a-1-0", "b-0"]);
    }
}
