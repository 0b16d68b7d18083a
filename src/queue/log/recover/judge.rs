//! Tells a torn tail from damage. Pure: it reads and changes nothing.
//!
//! A group is written only after the group before it was fsynced, so at most the last group can be
//! incomplete. Unsound bytes are a *torn tail* under three conditions: no record of a later group
//! follows them, no later segment exists, and the mark does not call them durable. Everything else
//! is damage, and a person decides.

use super::{
    damaged,
    inventory::{Inventory, ScannedSegment},
};
use crate::queue::{ConnectError, log::format::SEGMENT_HEADER};
use std::path::PathBuf;

/// Where the log goes on, and the changes to the directory that this needs.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// The position from which to go on, in a segment of its own.
    pub end: u64,
    pub previous_base: u64,
    /// Base and end of each segment that stays.
    pub segments: Vec<(u64, u64)>,
    /// The last segment ends here: its file is cut to this length.
    pub cut: Option<Cut>,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub path: PathBuf,
    pub offset: u64,
    pub torn_bytes: u64,
}

pub(super) fn judge(inventory: &Inventory) -> Result<Verdict, ConnectError> {
    let mark = inventory.mark;
    // Without the segment that the mark calls active, that segment was moved away, and the mark
    // says nothing of the others.
    let is_active_here = mark.is_some_and(|mark| {
        inventory
            .segments
            .iter()
            .any(|segment| segment.header.base >= mark.active_base)
    });
    let durable = mark.filter(|_| is_active_here).map_or(0, |mark| mark.durable);
    let mut verdict = Verdict {
        end: inventory.acked,
        previous_base: 0,
        segments: Vec::new(),
        cut: None,
    };
    for (index, segment) in inventory.segments.iter().enumerate() {
        match inventory.segments.get(index + 1) {
            Some(next) => check_sealed(segment, next)?,
            None => verdict.cut = Some(check_last(segment, durable)?),
        }
        verdict.end = segment.end;
        verdict.previous_base = segment.header.base;
        verdict.segments.push((segment.header.base, segment.end));
    }
    if let (Some(cut), Some(last)) = (&verdict.cut, inventory.segments.last())
        && cut.offset == SEGMENT_HEADER as u64
    {
        // The last segment is empty: the segment that begins here takes its name and its place.
        verdict.segments.pop();
        verdict.previous_base = last.header.previous_base;
    }
    if let Some(mark) = mark.filter(|_| !is_active_here) {
        verdict.end = verdict.end.max(mark.durable).max(mark.acked);
        if !inventory.segments.is_empty() || verdict.end > 0 {
            verdict.previous_base = mark.active_base;
        }
    }
    Ok(verdict)
}

/// A segment with a later one behind it is whole: a process begins the next one only at its end.
fn check_sealed(segment: &ScannedSegment, next: &ScannedSegment) -> Result<(), ConnectError> {
    let is_contiguous = next.header.previous_base == segment.header.base;
    let is_short = if is_contiguous {
        next.header.base != segment.end
    } else {
        // The segments between the two were moved away, so only the file itself can tell.
        segment.last_byte.is_some()
    };
    if is_short {
        return Err(damage(segment, "records are missing"));
    }
    Ok(())
}

fn check_last(segment: &ScannedSegment, durable: u64) -> Result<Cut, ConnectError> {
    if segment.end < durable {
        return Err(damage(segment, "records that were durable are missing"));
    }
    if segment.later_group_follows {
        return Err(damage(segment, "zeros stand where a record was"));
    }
    let offset = segment.end_offset();
    Ok(Cut {
        path: segment.path.clone(),
        offset,
        torn_bytes: segment.last_byte.map_or(0, |last_byte| last_byte + 1 - offset),
    })
}

fn damage(segment: &ScannedSegment, otherwise: &'static str) -> ConnectError {
    damaged(
        &segment.path,
        segment.end_offset(),
        segment.problem.unwrap_or(otherwise),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::log::{
        format::{LogId, Mark, SegmentHeader},
        usage::Usage,
    };

    const LOG: LogId = LogId([3; 16]);
    const BAD: Option<&str> = Some("the checksum of a record is wrong");

    /// A segment from `base` whose sound records end at `end`.
    fn segment(base: u64, previous_base: u64, end: u64) -> ScannedSegment {
        ScannedSegment {
            header: SegmentHeader {
                log: LOG,
                base,
                previous_base,
            },
            path: format!("{base}.seg").into(),
            end,
            problem: None,
            last_byte: None,
            later_group_follows: false,
        }
    }

    /// The same segment with unsound bytes behind its end.
    fn unsound(mut segment: ScannedSegment, bytes: u64, later_group_follows: bool) -> ScannedSegment {
        segment.problem = BAD;
        segment.last_byte = Some(segment.end_offset() + bytes - 1);
        segment.later_group_follows = later_group_follows;
        segment
    }

    fn mark(acked: u64, durable: u64, active_base: u64) -> Mark {
        Mark {
            log: LOG,
            sequence: 1,
            acked,
            durable,
            active_base,
            in_vain: 0,
        }
    }

    /// Where the log goes on, how many bytes are torn, and the bases that stay; or the reason of
    /// the damage.
    type Outcome = Result<(u64, u64, Vec<u64>), String>;
    type Case = (&'static str, Option<Mark>, Vec<ScannedSegment>, Outcome);

    fn outcome(mark: Option<Mark>, segments: &[ScannedSegment]) -> Outcome {
        let first = segments.first().map_or(0, |first| first.header.base);
        let acked = mark.map_or(first, |mark| mark.acked.max(first));
        let verdict = judge(&Inventory {
            log: LOG,
            mark,
            acked,
            unneeded: Vec::new(),
            segments: segments.to_vec(),
            usage: Usage::starting_at(acked),
        });
        match verdict {
            Ok(verdict) => Ok((
                verdict.end,
                verdict.cut.map_or(0, |cut| cut.torn_bytes),
                verdict.segments.iter().map(|(base, _)| *base).collect(),
            )),
            Err(ConnectError::Damaged { segment, reason, .. }) => Err(format!("{segment}: {reason}")),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_is_refused_and_a_moved_segment_is_passed_over() {
        let bad = BAD.unwrap();
        let cases: &[Case] = &[
            ("an empty directory", None, vec![], Ok((0, 0, vec![]))),
            (
                "a whole segment",
                Some(mark(0, 500, 0)),
                vec![segment(0, 0, 500)],
                Ok((500, 0, vec![0])),
            ),
            (
                "a segment without a record",
                Some(mark(500, 500, 500)),
                vec![segment(500, 0, 500)],
                Ok((500, 0, vec![])),
            ),
            (
                "torn: the last group was never durable",
                Some(mark(0, 500, 0)),
                vec![unsound(segment(0, 0, 500), 70, false)],
                Ok((500, 70, vec![0])),
            ),
            (
                "torn without a mark",
                None,
                vec![unsound(segment(0, 0, 500), 1, false)],
                Ok((500, 1, vec![0])),
            ),
            (
                "damaged: a later group follows",
                None,
                vec![unsound(segment(0, 0, 500), 900, true)],
                Err(format!("0.seg: {bad}")),
            ),
            (
                "damaged: the mark calls it durable",
                Some(mark(0, 501, 0)),
                vec![unsound(segment(0, 0, 500), 70, false)],
                Err(format!("0.seg: {bad}")),
            ),
            (
                "damaged: the file was cut below the durable mark",
                Some(mark(0, 501, 0)),
                vec![segment(0, 0, 500)],
                Err("0.seg: records that were durable are missing".into()),
            ),
            (
                "damaged: a sealed segment is short",
                None,
                vec![segment(0, 0, 400), segment(500, 0, 900)],
                Err("0.seg: records are missing".into()),
            ),
            (
                "damaged: a sealed segment has unsound bytes",
                None,
                vec![unsound(segment(0, 0, 400), 70, false), segment(500, 0, 900)],
                Err(format!("0.seg: {bad}")),
            ),
            (
                "whole and contiguous",
                None,
                vec![segment(0, 0, 500), segment(500, 0, 900)],
                Ok((900, 0, vec![0, 500])),
            ),
            (
                "moved away: a segment in the middle",
                None,
                vec![segment(0, 0, 500), segment(900, 500, 950)],
                Ok((950, 0, vec![0, 900])),
            ),
            (
                "damaged beside a segment that was moved away",
                None,
                vec![unsound(segment(0, 0, 400), 70, false), segment(900, 500, 950)],
                Err(format!("0.seg: {bad}")),
            ),
            (
                "moved away: the active segment",
                Some(mark(0, 990, 900)),
                vec![segment(0, 0, 500)],
                Ok((990, 0, vec![0])),
            ),
            (
                "moved away: all segments",
                Some(mark(700, 990, 900)),
                vec![],
                Ok((990, 0, vec![])),
            ),
        ];
        for (name, mark, segments, expected) in cases {
            assert_eq!(&outcome(*mark, segments), expected, "{name}");
        }
    }
}
