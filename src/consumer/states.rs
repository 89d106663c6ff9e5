//! The states of a group, and which may follow which.

/// Where a group stands. (Kafka: KIP-848's states; in the words of the classic protocol `Assigning` is
/// `PreparingRebalance`, and `Reconciling` is `CompletingRebalance`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// There is no such group: nobody joined it and nothing is committed for it.
    Dead,
    /// It has no members.
    Empty,
    /// What its plan is made from has changed: the next poll of any member makes a new one.
    Assigning,
    /// Partitions are on their way: members have yet to poll.
    Reconciling,
    /// Every member reads what it should.
    Stable,
}

impl GroupState {
    /// Whether a group in this state may be in `next` after one step. (Kafka: `ClassicGroupState`.)
    ///
    /// One call may take several steps: the poll of a lone member plans, moves and is done. A group that is `Dead`
    /// stays so; who uses its name again has another one.
    ///
    /// ```
    /// use tapelog::consumer::GroupState::{Assigning, Reconciling, Stable};
    /// assert!(Stable.may_become(Assigning) && Assigning.may_become(Reconciling));
    /// assert!(!Assigning.may_become(Stable));
    /// ```
    #[must_use]
    pub fn may_become(self, next: GroupState) -> bool {
        use GroupState::{Assigning, Dead, Empty, Reconciling, Stable};
        matches!(
            (self, next),
            (_, Dead)
                | (Empty | Stable | Reconciling, Assigning)
                | (Assigning, Reconciling | Empty)
                | (Reconciling, Stable)
        )
    }
}
