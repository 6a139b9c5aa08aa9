//! What is looked at all the time, whatever happens: metrics, the agent's process, the clients.

use std::{
    fs,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    counters::{Page, Tracker},
    journal::{Invariant, Journal},
    load::Clients,
};
use crate::{lab::Namespace, node::METRICS, workload::http};

/// Between two scrapes, as the fastest Prometheus would do it, and faster.
pub(super) const SCRAPES: Duration = Duration::from_millis(200);
/// An agent on a machine with much else to do may take so long to answer.
const ANSWER: Duration = Duration::from_secs(15);
const LOOKS: Duration = Duration::from_millis(100);
const SAMPLES: Duration = Duration::from_secs(1);
/// The agent's own memory may never be more.
const MOST_MEMORY_KIB: u64 = 96 << 10;
/// What it remembers of the last minute is full then: what a process has in its first seconds says nothing.
const WARM_S: u64 = 75;
/// A process of which there are so many samples after that has a course; it's told by the least of the first and of the last of them, for what comes and goes.
const COURSE: usize = 40;
/// More than this between the two is growth.
const MORE_DESCRIPTORS: u64 = 4;
const MORE_THREADS: u64 = 4;
const MORE_MEMORY_KIB: u64 = 4 << 10;

/// One look at the agent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When, in seconds from the begin.
    pub at_s: u64,
    /// The process.
    pub pid: u32,
    /// Memory that is its own, in KiB.
    pub memory_kib: u64,
    /// All that counts as resident, the mapped tables included, in KiB.
    pub resident_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// What the watchers know, and are told.
#[derive(Debug, Default)]
pub struct Watch {
    /// Number of the agent that runs and must answer; 0: none.
    agent: AtomicU64,
    pid: AtomicU64,
    agents: AtomicU64,
    over: AtomicBool,
    scrapes: AtomicU64,
    tracker: Mutex<Tracker>,
    page: Mutex<Page>,
    samples: Mutex<Vec<Sample>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // It is whole at any time, even if a holder of the lock panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// An agent is ready, and has to answer from now on.
    pub fn agent_runs(&self, pid: u32) {
        let number = self.agents.fetch_add(1, Ordering::AcqRel) + 1;
        self.pid.store(pid.into(), Ordering::Release);
        self.agent.store(number, Ordering::Release);
    }

    /// No agent has to answer.
    pub fn no_agent(&self) {
        self.agent.store(0, Ordering::Release);
    }

    /// The same agent as before has to answer again.
    pub fn agent_goes_on(&self) {
        self.agent.store(self.agents.load(Ordering::Acquire), Ordering::Release);
    }

    /// How many agents there have been.
    #[must_use]
    pub fn agents(&self) -> u64 {
        self.agents.load(Ordering::Acquire)
    }

    /// The watchers are to end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// What counters have been.
    pub fn tracker(&self) -> MutexGuard<'_, Tracker> {
        lock(&self.tracker)
    }

    /// The last page.
    #[must_use]
    pub fn page(&self) -> Page {
        lock(&self.page).clone()
    }

    /// All looks at the agent's processes.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Waits for a page that was asked for after this call; whether there was one in time.
    #[must_use]
    pub fn next_page(&self) -> bool {
        // The next one may have been asked for before.
        let wanted = self.scrapes.load(Ordering::Acquire) + 2;
        let deadline = Instant::now() + ANSWER * 2;
        while self.scrapes.load(Ordering::Acquire) < wanted {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Scrapes, until it's over. A thread's own work.
    ///
    /// # Panics
    /// When it can't enter the node's namespace.
    pub fn scrape(&self, node: &Namespace, journal: &Journal) {
        node.enter_this_thread().expect("as everybody has before");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        while !self.is_over() {
            let begun = Instant::now();
            let agent = self.agent.load(Ordering::Acquire);
            if agent != 0 {
                let answer = runtime.block_on(http::get(METRICS, "/metrics", ANSWER));
                // One that ended meanwhile need not have answered.
                let same = self.agent.load(Ordering::Acquire) == agent;
                match answer {
                    Ok(answer) if answer.status() == 200 => {
                        self.take(&Page::read(&String::from_utf8_lossy(answer.body())), agent, same, journal);
                    }
                    Ok(answer) if same => journal.violate(Invariant::Metrics, format!("answered with {}", answer.status())),
                    Err(error) if same => journal.violate(Invariant::Metrics, format!("no answer: {error}")),
                    Ok(_) | Err(_) => {}
                }
                if same {
                    journal.looked(Invariant::Metrics, 1);
                }
            }
            thread::sleep(SCRAPES.saturating_sub(begun.elapsed()));
        }
    }

    fn take(&self, page: &Page, agent: u64, same: bool, journal: &Journal) {
        if !same {
            return;
        }
        let (wrong, looks) = {
            let mut tracker = self.tracker();
            let before = tracker.looks;
            (tracker.next(page, agent), tracker.looks - before)
        };
        journal.looked(Invariant::Monotone, looks);
        wrong.into_iter().for_each(|what| journal.violate(Invariant::Monotone, what));
        *lock(&self.page) = page.clone();
        self.scrapes.fetch_add(1, Ordering::AcqRel);
    }

    /// Looks at the clients and at the agent's process, until it's over. A thread's own work.
    pub fn look(&self, clients: &Clients<'_>, journal: &Journal) {
        let mut sampled = Instant::now();
        while !self.is_over() {
            clients.look();
            if sampled.elapsed() > SAMPLES && self.agent.load(Ordering::Acquire) != 0 {
                sampled = Instant::now();
                self.sample(journal);
            }
            thread::sleep(LOOKS);
        }
    }

    fn sample(&self, journal: &Journal) {
        let Ok(pid) = u32::try_from(self.pid.load(Ordering::Acquire)) else { return };
        // It may end while we look.
        let Some(sample) = sample(pid, journal.now().as_secs()) else { return };
        lock(&self.samples).push(sample);
        journal.check(Invariant::Agent, sample.memory_kib <= MOST_MEMORY_KIB, || {
            format!("more than {MOST_MEMORY_KIB} KiB: {sample:?}")
        });
    }

    /// Whether any agent's process grew.
    pub fn look_at_courses(&self, journal: &Journal) {
        for course in courses(&self.samples()) {
            let Course { pid, first, last } = course;
            let grew = [
                ("descriptors", first.descriptors, last.descriptors, MORE_DESCRIPTORS),
                ("threads", first.threads, last.threads, MORE_THREADS),
                ("KiB of memory", first.memory_kib, last.memory_kib, MORE_MEMORY_KIB),
            ];
            for (what, first, last, more) in grew {
                journal.check(Invariant::Agent, last <= first + more, || format!("agent {pid}: from {first} to {last} {what}"));
            }
        }
    }
}

/// The least of the first and of the last samples of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Course {
    /// The process.
    pub pid: u32,
    /// In the first quarter of its time, once it was warm.
    pub first: Sample,
    /// In the last.
    pub last: Sample,
}

/// Those of processes that lived long enough.
#[must_use]
pub fn courses(samples: &[Sample]) -> Vec<Course> {
    let least = |samples: &[Sample]| {
        samples.iter().copied().reduce(|a, b| Sample {
            memory_kib: a.memory_kib.min(b.memory_kib),
            resident_kib: a.resident_kib.min(b.resident_kib),
            descriptors: a.descriptors.min(b.descriptors),
            threads: a.threads.min(b.threads),
            ..a
        })
    };
    let course = |samples: &[Sample]| {
        let quarter = samples.len() / 4;
        let (first, last) = (least(&samples[..quarter])?, least(&samples[samples.len() - quarter..])?);
        Some(Course { pid: first.pid, first, last })
    };
    warm(samples).filter_map(course).collect()
}

/// The samples of each process that lived long enough, from when it was warm.
fn warm(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    samples.chunk_by(|a, b| a.pid == b.pid).filter_map(|samples| {
        let cold = samples.iter().take_while(|sample| sample.at_s < samples[0].at_s + WARM_S).count();
        Some(&samples[cold..]).filter(|samples| samples.len() >= COURSE)
    })
}

/// The slope of the memory of processes that lived long enough, in KiB a minute, by least squares over each process's own samples.
#[must_use]
pub fn slope(samples: &[Sample]) -> Option<f64> {
    let (mut of_both, mut of_time) = (0.0, 0.0);
    for samples in warm(samples) {
        #[expect(clippy::cast_precision_loss, reason = "seconds and KiB are far below 2^52")]
        let points = || samples.iter().map(|sample| (sample.at_s as f64 / 60.0, sample.memory_kib as f64));
        #[expect(clippy::cast_precision_loss, reason = "a count of samples is far below 2^52")]
        let count = samples.len() as f64;
        let (mean_x, mean_y) = points().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
        of_both += points().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
        of_time += points().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    }
    (of_time > 0.0).then(|| of_both / of_time)
}

fn sample(pid: u32, at_s: u64) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    Some(Sample {
        at_s,
        pid,
        memory_kib: number("RssAnon")?,
        resident_kib: number("VmRSS")?,
        descriptors,
        threads: number("Threads")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pid: u32, memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |at_s| Sample { at_s, pid, memory_kib: memory(at_s), resident_kib: 0, descriptors: 30, threads: 5 };
        (0..160).map(sample).collect()
    }

    #[test]
    fn the_slope_is_that_of_processes_by_themselves_and_not_of_one_after_the_other() {
        let grows = samples(1, |at| 1_000 + 2 * at);
        let slope_of = |samples: &[Sample]| slope(samples).expect("it lived long enough");
        assert!((slope_of(&grows) - 120.0).abs() < 1e-6, "2 KiB a second");
        let steps = [samples(1, |at| 500 + at.min(70) * 10), samples(2, |_| 9_000)].concat();
        assert!(slope_of(&steps).abs() < 1e-6);
        assert_eq!(slope(&grows[..100]), None);
    }

    #[test]
    fn a_course_is_told_by_the_least_so_that_what_comes_and_goes_is_none() {
        let spikes = samples(1, |at| if at % 3 == 0 { 9_000 } else { 1_000 });
        let [course] = courses(&spikes)[..] else { panic!("one process") };
        assert_eq!((course.first.memory_kib, course.last.memory_kib), (1_000, 1_000));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let sample = sample(std::process::id(), 3).expect("it runs");
        assert!(
            sample.memory_kib > 0 && sample.resident_kib >= sample.memory_kib && sample.descriptors > 2 && sample.threads > 0
        );
    }
}
