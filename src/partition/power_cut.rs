//! What a loss of power leaves of segments that were never flushed: any of their pages, names and sizes (M in `recovery`).

use crate::error::Result;
use crate::partition::recovery::{Note, Recovered, Recovering, RecoveryAction, free_name, lost};
use crate::segment::scan::{Damage, SegmentScan, SegmentScanOptions, is_stillborn, scan};

/// Calls a segment torn that ends before the next one begins, where neither is known to have been flushed: the power cut
/// took its end, whole pages of it, so that nothing else tells. The log ends there, as it does before any torn place.
pub(crate) fn end_before_gaps(scans: &mut [SegmentScan]) {
    let flushed = scans.iter().rposition(|scan| scan.durable_mark > 0).unwrap_or(0);
    for i in flushed..scans.len().saturating_sub(1) {
        let goes_on = scans[i + 1].meta.base_offset;
        let scan = &mut scans[i];
        if scan.end.next_offset < goes_on && scan.end.position >= scan.floor && scan.torn.is_none() {
            let (from, to) = (scan.end.position, scan.file_len.max(scan.end.position));
            scan.torn = Some(Damage { from, to, below_floor: false, header: None, next: None });
        }
    }
}

/// Sets segments aside that a power cut left without a beginning, since they were never flushed, and those that follow
/// them; leaves the `names` of the others.
pub(crate) fn set_stillborn_aside(
    r: &Recovering<'_>,
    names: &mut Vec<(u64, u32, String)>,
    done: &mut Recovered,
) -> Result<()> {
    let owner = (r.topic_id, r.partition);
    // A log begins where the catalog says, unless the power took the name of its first file.
    let mut first = if names.first().is_some_and(|(base, _, _)| *base > r.start) { 0 } else { names.len() };
    for (i, (_, _, name)) in names[..first].iter().enumerate() {
        if is_stillborn(r.directory, r.folder, name, owner)? {
            first = i;
            break;
        }
    }
    let options = SegmentScanOptions { floor: 0, verify_last: u64::MAX, believe_marks: true };
    for (_, _, name) in &names[first..] {
        // A flush covers all that was written before: then it is damage, and for whoever scans it to tell.
        let is_segment = !is_stillborn(r.directory, r.folder, name, owner)?;
        if is_segment && scan(r.directory, r.folder, name, owner, options)?.durable_mark > 0 {
            return Ok(());
        }
    }
    for (_, _, name) in names.drain(first..) {
        let to = format!("{:016x}-{}-{name}", r.topic_id, r.partition);
        let to = free_name(r.directory, r.quarantine, to);
        r.directory.create_dir_all(r.quarantine)?;
        r.directory.rename(&r.folder.join(&name), &to)?;
        done.items.push(Note {
            action: RecoveryAction::TornTail,
            kept_in: Some(r.directory.root().join(to)),
            ..lost(r, &name, "this segment, or one before it, was never flushed")
        });
    }
    Ok(())
}
