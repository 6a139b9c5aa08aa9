use std::{
    os::unix::fs::PermissionsExt as _,
    thread::{sleep, spawn},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use rand::RngExt as _;

use super::*;
use crate::{
    controller::Comparison,
    model::{Compare, Existing, Gate, OnBreach, OnDeadline, OnNoData, Plan, Step, Weight},
    store::{Moved, Phase, Progress, Run, Sample, killed},
};

#[test]
fn rollouts_come_back_newest_first_and_one_of_the_same_number_replaces_the_one_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = opened(directory.path());
    assert_eq!(history.list(None, 10).expect("read"), []);
    for (number, service) in [(1, "checkout"), (3, "search"), (2, "checkout")] {
        history.keep(&record(number, service)).expect("kept");
    }
    let mut anew = record(2, "checkout");
    anew.run.by = "somebody else".to_owned();
    history.keep(&anew).expect("kept");
    drop(history);

    let history = opened(directory.path());
    let (first, third) = (record(1, "checkout"), record(3, "search"));
    assert_eq!(history.list(None, 10).expect("read"), [third.clone(), anew.clone(), first.clone()]);
    assert_eq!(history.list(None, 2).expect("read"), [third, anew.clone()]);
    assert_eq!(history.list(Some(&name("checkout")), 10).expect("read"), [anew.clone(), first]);
    assert_eq!(history.list(Some(&name("checkout")), 1).expect("read"), [anew]);
    assert_eq!(history.list(Some(&name("check")), 10).expect("read"), [], "the whole name counts, not its beginning");
    let mode = fs::metadata(directory.path().join(HISTORY)).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    assert_eq!(names(directory.path()), [HISTORY]);
}

#[test]
fn a_number_that_another_service_has_now_is_not_listed_with_the_one_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = opened(directory.path());
    history.keep(&record(1, "checkout")).expect("kept");
    history.keep(&record(1, "search")).expect("kept");
    assert_eq!(history.list(Some(&name("checkout")), 10).expect("read"), []);
    assert_eq!(history.list(Some(&name("search")), 10).expect("read"), [record(1, "search")]);
}

#[test]
fn after_5000_rollouts_the_latest_1000_are_there_in_a_file_of_bounded_length() {
    let directory = in_memory();
    let history = opened(directory.path());
    let mut longest = 0;
    for number in 1..=5_000 {
        history.keep(&record(number, if number % 2 == 0 { "even" } else { "odd" })).expect("kept");
        longest = longest.max(length(directory.path()));
    }
    assert!(longest <= FileHistory::FILE, "{longest} bytes");
    let all = history.list(None, usize::MAX).expect("read");
    assert_eq!(all.iter().map(|record| record.run.id).collect::<Vec<_>>(), (4_001..=5_000).rev().collect::<Vec<_>>());
    assert_eq!(history.list(Some(&name("odd")), usize::MAX).expect("read").len(), 500);
    let json: usize = all.iter().map(|record| serde_json::to_vec(record).expect("JSON").len()).sum();
    assert!(json as u64 > FileHistory::BYTES / 8, "{json} bytes in 1,000 rollouts are less than real ones have");
}

#[test]
fn the_oldest_go_when_all_together_are_too_long_and_the_file_gets_shorter_when_little_is_left() {
    let directory = in_memory();
    let history = opened(directory.path());
    let long = |number| with_words(number, 200, 1_200);
    let mut longest = 0;
    for number in 1..=200 {
        history.keep(&long(number)).expect("kept");
        longest = longest.max(length(directory.path()));
    }
    assert!(longest <= FileHistory::FILE, "{longest} bytes");
    let kept = history.list(None, usize::MAX).expect("read");
    let json: usize = kept.iter().map(|record| serde_json::to_vec(record).expect("JSON").len()).sum();
    assert!(json as u64 <= FileHistory::BYTES && json as u64 > FileHistory::BYTES - FileHistory::RECORD as u64, "{json}");
    assert_eq!(kept[0], long(200));
    // As if the same rollouts had been short.
    for record in &kept {
        history.keep(&self::record(record.run.id, "checkout")).expect("kept");
    }
    assert!(length(directory.path()) <= FileHistory::FILE / 8, "{} bytes", length(directory.path()));
    assert_eq!(history.list(None, usize::MAX).expect("read").len(), kept.len());
}

#[test]
fn a_rollout_that_is_too_long_loses_the_older_part_of_its_log_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let history = opened(directory.path());
    let long = with_words(7, 200, 4_000);
    history.keep(&long).expect("kept");
    let kept = history.list(None, 1).expect("read").remove(0);
    let json = serde_json::to_vec(&kept).expect("JSON").len();
    assert!(json <= FileHistory::RECORD && json > FileHistory::RECORD - 8_000, "{json} bytes");
    assert_eq!(kept.left_out, long.run.log.len() - kept.run.log.len());
    assert!(kept.left_out > 100);
    assert_eq!(kept.run.log[0], long.run.log[0], "how it began");
    assert_eq!(kept.run.log[1..], long.run.log[1 + kept.left_out..], "and what came last");
    let rest = |record: Record| Record { run: Run { log: vec![], ..record.run }, left_out: 0, ..record };
    assert_eq!(rest(kept), rest(long));
}

#[test]
fn whatever_was_kept_is_there_after_kill_9_at_any_moment() {
    if let Some(place) = killed::place() {
        keep_until_killed(&place);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut random = rand::rng();
    let mut most = 0;
    for round in 0..60 {
        // Some begin anew, so that some are killed while they make the file.
        let place = directory.path().join(if round % 4 == 0 { format!("new-{round}") } else { "old".to_owned() });
        fs::create_dir_all(&place).expect("made");
        let mut child = killed::start(module_path!(), "whatever_was_kept_is_there_after_kill_9_at_any_moment", &place, None);
        sleep(Duration::from_micros(random.random_range(0..150_000)));
        child.kill().expect("killed");
        child.wait().expect("it's gone");

        let last = killed::acknowledged(&place);
        let (history, opening) = FileHistory::open(&place, Timestamp::UNIX_EPOCH);
        assert_eq!(opening, Opening::Open, "round {round}");
        let kept = history.list(None, usize::MAX).expect("read");
        let newest = kept.first().map_or(0, |record| record.run.id);
        assert!(newest >= last, "{last} was acknowledged, {newest} is there");
        let expected = (1..=newest).rev().take(1_000).map(|number| record(number, "checkout"));
        assert!(kept.into_iter().eq(expected), "round {round}");
        most = most.max(last);
    }
    assert!(most > 20, "the children kept {most} rollouts, so that few were killed at work");
}

#[test]
fn a_damaged_history_is_kept_aside_and_a_new_one_is_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(HISTORY);
    let history = opened(directory.path());
    for number in 1..=50 {
        history.keep(&record(number, "checkout")).expect("kept");
    }
    drop(history);
    let whole = fs::read(&path).expect("read");
    let mut flipped = whole.clone();
    let at = whole.windows(9).position(|bytes| bytes == b"somewhere").expect("in a record");
    flipped[at] ^= 1;
    for (bytes, name, part) in [
        (&whole[..whole.len() / 2], "history.redb.damaged-20260102T030405Z", "truncated"),
        (&b""[..], "history.redb.damaged-20260102T030405Z-2", "does not exist"),
        (&b"{\"version\": 1}"[..], "history.redb.damaged-20260102T030405Z-3", "magic number"),
        (&flipped, "history.redb.damaged-20260102T030405Z-4", "orrupt"),
    ] {
        fs::write(&path, bytes).expect("damaged");
        let (history, opening) = FileHistory::open(directory.path(), "2026-01-02T03:04:05Z".parse().expect("a time"));
        let Opening::Damaged { kept_as, why } = opening else { panic!("{name}: {opening:?}") };
        assert_eq!(kept_as, directory.path().join(name));
        assert!(why.contains(part), "{name}: {why}");
        assert_eq!(history.list(None, 10).expect("read"), []);
        history.keep(&record(1, "checkout")).expect("kept");
        assert_eq!(history.list(None, 10).expect("read"), [record(1, "checkout")]);
    }
}

#[test]
fn bytes_that_change_anywhere_are_found_or_do_not_matter() {
    let directory = in_memory();
    let path = directory.path().join(HISTORY);
    let history = opened(directory.path());
    let kept: Vec<Record> = (1..=20).rev().map(|number| record(number, "checkout")).collect();
    for record in kept.iter().rev() {
        history.keep(record).expect("kept");
    }
    drop(history);
    let whole = fs::read(&path).expect("read");
    let mut random = rand::rng();
    let mut found = 0;
    for _ in 0..300 {
        let mut damaged = whole.clone();
        let at = random.random_range(0..damaged.len());
        let length = random.random_range(1..64.min(damaged.len() - at + 1).max(2));
        for byte in &mut damaged[at..][..length.min(whole.len() - at)] {
            *byte = random.random();
        }
        fs::write(&path, &damaged).expect("damaged");
        let (history, opening) = FileHistory::open(directory.path(), Timestamp::UNIX_EPOCH);
        match opening {
            // A prefix: the file has two roots, and without the newer one it's as it was before.
            Opening::Open => assert!(kept.ends_with(&history.list(None, 100).expect("read")), "at {at}, {length}"),
            Opening::Damaged { kept_as, .. } => {
                found += 1;
                assert_eq!(history.list(None, 100).expect("read"), []);
                fs::remove_file(kept_as).expect("there");
            }
            Opening::Closed(error) => panic!("at {at}, {length}: {error}"),
        }
    }
    assert!(found > 0, "nothing was ever found");
}

#[test]
fn a_history_that_another_process_has_is_a_clear_error_until_that_one_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = opened(directory.path());
    let (second, opening) = FileHistory::open(directory.path(), Timestamp::UNIX_EPOCH);
    let Opening::Closed(error) = opening else { panic!("{opening:?}") };
    let path = directory.path().join(HISTORY);
    assert_eq!(error.to_string(), format!("the history {}: another process has it open: stop that one first", path.display()));
    assert_eq!(second.keep(&record(1, "checkout")), Err(error));
    drop(first);
    second.keep(&record(1, "checkout")).expect("kept");
}

#[test]
fn a_history_that_cannot_be_opened_is_an_error_not_damage() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join(HISTORY)).expect("a directory in its place");
    let (history, opening) = FileHistory::open(directory.path(), Timestamp::UNIX_EPOCH);
    assert!(matches!(opening, Opening::Closed(_)), "{opening:?}");
    fs::remove_dir(directory.path().join(HISTORY)).expect("gone");
    history.keep(&record(1, "checkout")).expect("kept");
}

#[test]
fn a_full_disk_and_a_read_only_one_keep_what_was_kept_and_say_so() {
    assert!(geteuid().is_root(), "this test mounts a small file system in a namespace of its own: run it as root");
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().to_owned();
    // A thread has a mount namespace of its own, and takes the mount with it as it ends.
    let tried = spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a namespace");
        mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None).expect("private");
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=3m")).expect("a small disk");
        let history = opened(&place);
        let full = (1..).find_map(|number| history.keep(&with_words(number, 50, 1_000)).err().map(|error| (number, error)));
        let (number, error) = full.expect("it's full some time");
        let remedy = format!("no space left: make room in {}; what was kept before is intact", place.display());
        assert_eq!(error, HistoryError { path: place.join(HISTORY), why: remedy });
        assert!(number > 10, "full with {number} already");
        let before: Vec<Record> = (1..number).rev().map(|number| with_words(number, 50, 1_000)).collect();
        assert_eq!(history.list(None, usize::MAX).expect("read while it's full"), before);
        drop(history);
        assert_eq!(opened(&place).list(None, usize::MAX).expect("read"), before);

        mount::<str, Path, str, str>(None, &place, None, MsFlags::MS_REMOUNT, Some("size=16m")).expect("room was made");
        let history = opened(&place);
        history.keep(&with_words(number, 50, 1_000)).expect("kept");
        drop(history);
        let read_only = || mount::<str, Path, str, str>(None, &place, None, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None);
        // A process that another test starts has every file of this one open, until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = read_only() {
            assert!(error == Errno::EBUSY && Instant::now() < deadline, "read-only: {error}");
            sleep(Duration::from_millis(1));
        }
        let (_, opening) = FileHistory::open(&place, Timestamp::UNIX_EPOCH);
        let Opening::Closed(error) = opening else { panic!("{opening:?}") };
        assert!(error.why.contains("may not be written to"), "{error}");
    });
    tried.join().expect("all as expected");
}

/// For tests that write a lot, and don't ask whether it outlives the machine.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a directory")
}

fn opened(directory: &Path) -> FileHistory {
    let (history, opening) = FileHistory::open(directory, Timestamp::UNIX_EPOCH);
    assert_eq!(opening, Opening::Open);
    history
}

fn name(name: &str) -> ServiceName {
    name.parse().expect("a name in a test is right")
}

/// A rollout of the usual size: a plan of four steps, and what happens in them. The same for the same number.
fn record(number: u64, service: &str) -> Record {
    let started_at = Timestamp::from_second(1_700_000_000 + i64::try_from(number).expect("small")).expect("a time");
    let weight = |bp| Weight::from_basis_points(bp).expect("in range");
    let step = |bp, gate| Step { from: None, weight: weight(bp), lasts: Duration::from_secs(900), gate };
    let how = Compare {
        false_alarm_rate: 0.01,
        failures: true,
        handshake_p90: true,
        tolerance: "1.2x".parse().expect("a factor"),
        stable_failing: weight(1_000),
    };
    let plan = Plan {
        steps: vec![step(100, None), step(1_000, None), step(5_000, None), step(10_000, Some(Gate::Manual))],
        min_connections: 500,
        on_breach: OnBreach::Flip,
        existing: Existing::Reset,
        on_no_data: OnNoData::Hold,
        no_data_for: Duration::from_secs(300),
        deadline: Duration::from_secs(21_600),
        on_deadline: OnDeadline::Abort,
        compare: Some(how),
        checks: vec![],
    };
    let by = "anna (uid 1000), from somewhere".to_owned();
    let mut run = Run {
        id: number,
        plan: plan.clone(),
        by: by.clone(),
        started_at,
        phase: Phase::Promoted,
        progress: Progress { comparison: Some(Comparison::new(&how)), ..Progress::default() },
        log: vec![],
    };
    run.note(started_at, Moved::Started { by: by.clone(), steps: 4 });
    for (index, step) in plan.steps.iter().enumerate() {
        let (step_number, of) = (index + 1, plan.steps.len());
        run.note(started_at, Moved::Step { step: step_number, of, plan: step.to_string(), weight: step.weight });
        let sample = Sample { failures: number % 7, attempts: 1_000 + number };
        run.note(started_at, Moved::Passed { step: step_number, of, canary: sample, stable: sample });
    }
    for _ in 0..number % 16 {
        run.note(started_at, Moved::Resumed { by: by.clone() });
    }
    run.note(started_at, Moved::Promoted);
    Record { service: name(service), run, left_out: 0 }
}

/// One with so many more entries in its log, of so many letters each.
fn with_words(number: u64, entries: usize, letters: usize) -> Record {
    let mut record = record(number, "checkout");
    for entry in 0..entries {
        let at = record.run.started_at;
        record.run.note(at, Moved::Resumed { by: format!("{entry:0letters$}") });
    }
    record
}

fn length(directory: &Path) -> u64 {
    fs::metadata(directory.join(HISTORY)).expect("there").len()
}

fn names(directory: &Path) -> Vec<String> {
    let entry = |entry: io::Result<fs::DirEntry>| entry.expect("read").file_name().into_string().expect("a name");
    let mut names: Vec<String> = fs::read_dir(directory).expect("listed").map(entry).collect();
    names.sort();
    names
}

/// What is to be killed.
fn keep_until_killed(place: &Path) -> ! {
    let history = opened(place);
    let mut acknowledgements = killed::acknowledgements(place);
    let newest = history.list(None, 1).expect("read").first().map_or(0, |record| record.run.id);
    for number in newest + 1.. {
        history.keep(&record(number, "checkout")).expect("kept");
        killed::acknowledge(&mut acknowledgements, number);
    }
    unreachable!("there are numbers enough")
}
