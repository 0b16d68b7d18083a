//! The embedded queue's files, damaged: a torn tail is cut, everything else
//! is refused and named, and nothing is skipped in silence.

use crate::queue_embedded::{Scratch, held, open, publish, segments, settings};
use hookswitch::{
    domain::{EventId, OrgId, SystemClock},
    queue::{ConnectError, EventQueue, LogQueue},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The bytes before the first record, and before each payload.
const HEADER: usize = 64;

/// Every file's bytes, to see that nothing was changed.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn end_of_records(path: &Path) -> usize {
    fs::read(path)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// The directory as power loss leaves it: no mark of the last second, no end of the last segment
/// but where the zeros begin.
async fn crashed(bodies: &[&[u8]]) -> (Scratch, Vec<EventId>) {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let mut ids = Vec::new();
    for body in bodies {
        // One at a time: each is a group of its own.
        ids.push(publish(&queue, OrgId::generate(), body).await);
    }
    let crashed = place.copy();
    let _ = fs::remove_file(crashed.0.join("marks"));
    (crashed, ids)
}

async fn refused(directory: &Path) -> (String, u64, String) {
    let before = contents(directory);
    let error = LogQueue::open(directory, settings(), Arc::new(SystemClock))
        .await
        .expect_err("it is damaged");
    let after = contents(directory);
    assert!(
        before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)),
        "files were changed"
    );
    match error {
        ConnectError::Damaged {
            segment,
            offset,
            reason,
        } => (segment, offset, reason),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_wherever_it_tore_and_does_not_come_back() {
    let (crashed, ids) = crashed(&[b"one", b"two", &[b'z'; 600]]).await;
    let segment = segments(&crashed.0).pop().unwrap();
    let end = end_of_records(&segment);
    let last = end - 600;
    // In the payload, at its start, in the attributes, in the header, and the first byte alone.
    for torn_at in [end - 1, last + 1, last, last - 40, last - 200, last - 260] {
        let copy = crashed.copy();
        let segment = segments(&copy.0).pop().unwrap();
        change(&segment, |bytes| bytes[torn_at..].fill(0));
        let queue = open(&copy.0).await;
        assert_eq!(held(&queue).await, ids[..2], "torn at {torn_at}");
        let next = publish(&queue, OrgId::generate(), b"next").await;
        let second_crash = copy.copy();
        let queue = open(&second_crash.0).await;
        assert_eq!(held(&queue).await, [ids[0], ids[1], next], "torn at {torn_at}");
    }
}

#[tokio::test]
async fn pages_of_the_last_group_may_reach_the_disk_in_any_order() {
    let (crashed, ids) = crashed(&[b"one", &vec![b'z'; 20_000]]).await;
    let segment = segments(&crashed.0).pop().unwrap();
    let start = end_of_records(&segment) - 20_000;
    // The record's beginning never arrived, its end did; then the same in the middle.
    for hole in [start - 100..start + 4096, start + 4096..start + 8192] {
        let copy = crashed.copy();
        change(&segments(&copy.0).pop().unwrap(), |bytes| bytes[hole.clone()].fill(0));
        assert_eq!(held(&open(&copy.0).await).await, ids[..1], "hole at {hole:?}");
    }
}

#[tokio::test]
async fn garbage_behind_the_last_record_is_a_torn_tail() {
    let (crashed, ids) = crashed(&[b"one"]).await;
    let segment = segments(&crashed.0).pop().unwrap();
    let end = end_of_records(&segment);
    change(&segment, |bytes| {
        bytes[end..end + 11].fill(0xAB);
        bytes.extend_from_slice(b"HSR1 looks like a record");
    });
    assert_eq!(held(&open(&crashed.0).await).await, ids);
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_group_is_refused_and_named() {
    let (crashed, _) = crashed(&[&[b'a'; 500], b"two", b"three"]).await;
    let segment = segments(&crashed.0).pop().unwrap();
    // Marker, length, group, id, organisation, time, both checksums, attributes, body.
    for at in [0, 4, 7, 8, 16, 32, 48, 56, 60, 64, 100, 400, 600] {
        let copy = crashed.copy();
        let damaged = copy.0.join(segment.file_name().unwrap());
        change(&damaged, |bytes| bytes[HEADER + at] ^= 0x10);
        let (named, offset, reason) = refused(&copy.0).await;
        assert_eq!(
            (named, offset),
            (damaged.display().to_string(), HEADER as u64),
            "flipped at {at}: {reason}"
        );
        // As the message says: moved away, the queue starts without its events.
        fs::remove_file(&damaged).unwrap();
        let queue = open(&copy.0).await;
        let next = publish(&queue, OrgId::generate(), b"next").await;
        assert_eq!(held(&queue).await, [next]);
    }
}

#[tokio::test]
async fn zeros_in_the_middle_are_damage_and_no_end() {
    let (crashed, _) = crashed(&[b"one", &[b'a'; 9000], b"three"]).await;
    let segment = segments(&crashed.0).pop().unwrap();
    change(&segment, |bytes| bytes[HEADER..HEADER + 4096].fill(0));
    let (_, offset, _) = refused(&crashed.0).await;
    assert_eq!(offset, HEADER as u64);
}

#[tokio::test]
async fn after_a_clean_end_the_last_record_is_no_torn_tail_either() {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    publish(&queue, OrgId::generate(), b"one").await;
    publish(&queue, OrgId::generate(), b"two").await;
    queue.close().await;
    let segment = segments(&place.0).pop().unwrap();
    let end = end_of_records(&segment);
    let cut_short = place.copy();
    change(&segments(&cut_short.0).pop().unwrap(), |bytes| bytes.truncate(end - 3));
    refused(&cut_short.0).await;
    change(&segment, |bytes| bytes[end - 1] ^= 1);
    refused(&place.0).await;
}

/// A queue of several segments, closed.
async fn long() -> (Scratch, Vec<EventId>) {
    let place = Scratch::new();
    let queue = open(&place.0).await;
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(publish(&queue, OrgId::generate(), &vec![b'x'; 30_000]).await);
    }
    queue.close().await;
    assert!(segments(&place.0).len() >= 4);
    (place, ids)
}

#[tokio::test]
async fn a_segment_that_is_cut_short_empty_or_foreign_is_refused_and_named() {
    let (place, _) = long().await;
    let name = segments(&place.0)[1].file_name().unwrap().to_owned();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 6] = [
        ("the file is empty", Vec::clear),
        ("not a segment", |bytes| {
            *bytes = b"#!/bin/sh\necho this is not a segment, whatever its name says; far from it, really\n".to_vec();
        }),
        ("not a segment", |bytes| bytes.truncate(10)),
        ("header is wrong", |bytes| bytes[30] ^= 1),
        ("missing", |bytes| bytes.truncate(HEADER)),
        ("ends inside a record", |bytes| bytes.truncate(HEADER + 31_000)),
    ];
    for (expected, damage) in damages {
        let copy = place.copy();
        let damaged = copy.0.join(&name);
        change(&damaged, damage);
        let (named, _, reason) = refused(&copy.0).await;
        assert_eq!(named, damaged.display().to_string());
        assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
    }
    let (other, _) = long().await;
    let copy = place.copy();
    fs::copy(
        segments(&other.0).last().unwrap(),
        copy.0.join(format!("{:020}.seg", 1_u64 << 40)),
    )
    .unwrap();
    assert!(refused(&copy.0).await.2.contains("another"));
    fs::write(place.0.join("backup.seg"), b"?").unwrap();
    assert!(refused(&place.0).await.2.contains("name"));
}

#[tokio::test]
async fn a_segment_that_was_moved_away_costs_only_its_events() {
    let (place, ids) = long().await;
    let files = segments(&place.0);
    for (index, file) in files.iter().enumerate() {
        let copy = place.copy();
        fs::remove_file(copy.0.join(file.file_name().unwrap())).unwrap();
        let queue = open(&copy.0).await;
        let left = held(&queue).await;
        assert!(
            left.len() < ids.len() && left.len() + 15 > ids.len(),
            "without segment {index} there are {}",
            left.len()
        );
        let mut rest = ids.iter();
        assert!(left.iter().all(|id| rest.any(|other| other == id)), "order is kept");
        // Events after it are neither taken for acked nor overwritten, also after another
        // restart.
        let next = publish(&queue, OrgId::generate(), b"next").await;
        drop(queue);
        let again = held(&open(&copy.0).await).await;
        assert_eq!(
            (again.len(), again.last()),
            (left.len() + 1, Some(&next)),
            "without segment {index}"
        );
    }
}

#[tokio::test]
async fn without_a_mark_everything_comes_again() {
    let (place, ids) = long().await;
    for damage in [
        Vec::clear as fn(&mut Vec<u8>),
        |bytes| bytes.fill(0xFF),
        |bytes| bytes.truncate(20),
    ] {
        let copy = place.copy();
        change(&copy.0.join("marks"), damage);
        assert_eq!(held(&open(&copy.0).await).await, ids);
    }
}

#[tokio::test]
async fn files_that_are_not_ours_are_left_alone() {
    let (place, ids) = long().await;
    fs::write(place.0.join("notes.txt"), b"keep me").unwrap();
    fs::write(place.0.join("spare.tmp"), b"half a segment").unwrap();
    assert_eq!(held(&open(&place.0).await).await, ids);
    assert_eq!(fs::read(place.0.join("notes.txt")).unwrap(), b"keep me");
}
