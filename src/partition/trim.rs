//! Letting go of the first records of a partition.

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::partition::core::PartitionCore;

impl PartitionCore {
    /// Has the partition start at `before`, which is at most its end and is recorded as its start. Files, and in an
    /// in-memory log chunks, that hold nothing from there on go; whoever reads in one reads on. Called by one at a time.
    pub(crate) fn trim(&self, before: u64) -> Result<()> {
        self.start.fetch_max(before, Ordering::AcqRel);
        {
            let mut state = self.append.lock();
            let kept = state.segment_bases.partition_point(|base| *base <= before).saturating_sub(1);
            state.segment_bases.drain(..kept);
        }
        let Some(_) = &self.engine.directory else {
            while let Some(first) = self.tail.first_offset()
                && self.tail.first_after(first).is_some_and(|next| next <= before)
                && self.tail.evict(first).is_some()
            {}
            return Ok(());
        };
        let below = self.chain.segments().windows(2).take_while(|two| two[1].base_offset() <= before).count();
        // An open that finds some of them still there does the rest.
        self.chain.remove_first(below).iter().try_for_each(|segment| segment.unlink())
    }
}
