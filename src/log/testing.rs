//! What only tests ask of a log that they open.

use std::sync::Arc;

use crate::log::opening::LogBuilder;
use crate::storage::fault::FaultPlan;
#[cfg(target_os = "linux")]
use crate::storage::simulated::SimulatedDisk;

impl LogBuilder {
    /// Has calls to the disk fail as `plan` says. With the feature `testing`.
    #[must_use]
    pub fn faults(mut self, plan: &Arc<FaultPlan>) -> Self {
        self.faults = Some(Arc::clone(plan));
        self
    }

    /// Has the log lie on a disk in memory whose power can be cut. With the feature `testing`, on Linux.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn simulated_disk(mut self, disk: &SimulatedDisk) -> Self {
        self.disk = Arc::new(disk.clone());
        self
    }

    /// Has the log do without threads, so that nothing is written or flushed but by who waits for it: for logs that are
    /// opened by the million, to see what is in them. With the feature `testing`.
    #[must_use]
    pub fn undriven(mut self) -> Self {
        self.driven = false;
        self
    }
}
