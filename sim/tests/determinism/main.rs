//! A seed determines a run: two processes with the same seed do the same, to the last byte on the network.
//!
//! All other uses of the simulation depend on this, so these tests run before all others. An application on one of the hosts
//! reads every source of randomness that a library might read; the values are in the trace.

mod sources;
mod workload;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
};

use rmom_sim::traced;

use crate::{sources::Source, workload::simulate};

/// Tells a process what to do: the seeds to run, of which it writes the last one's trace, or `sources`.
const TASK: &str = "RMOM_DETERMINISM_TASK";
/// Tells a process where to write.
const OUTPUT: &str = "RMOM_DETERMINISM_OUTPUT";

/// The number of seeds to compare. Default: 6.
const SEEDS: &str = "RMOM_DETERMINISM_SEEDS";

/// The task of the other processes.
#[test]
#[ignore = "the other tests run it, with a task"]
fn child() {
    let (Ok(task), Ok(output)) = (std::env::var(TASK), std::env::var(OUTPUT)) else { return };
    let lines = if task == "sources" {
        Source::ALL.map(|source| format!("{source:?} {}", sources::outside(source))).to_vec()
    } else {
        let mut lines = Vec::new();
        for seed in task.split(',') {
            let seed = seed.parse().unwrap();
            lines = traced(true, || simulate(seed).unwrap()).1.lines;
        }
        lines
    };
    fs::write(output, lines.join("\n")).unwrap();
}

/// A process with a task.
struct Task {
    process: Child,
    output: PathBuf,
}

impl Task {
    fn start(test: &str, number: usize, task: &str) -> Self {
        let output = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}-{number}.txt"));
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--quiet"])
            .env(TASK, task)
            .env(OUTPUT, &output)
            .spawn()
            .unwrap();
        Self { process, output }
    }

    fn finish(mut self) -> Vec<String> {
        assert!(self.process.wait().unwrap().success());
        let text = fs::read_to_string(&self.output).unwrap();
        fs::remove_file(&self.output).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs two tasks at the same time, in two processes, and returns their outputs.
fn in_two_processes(test: &str, tasks: [&str; 2]) -> [Vec<String>; 2] {
    let [one, other] = tasks;
    [Task::start(test, 1, one), Task::start(test, 2, other)].map(Task::finish)
}

/// Compares two traces and shows where they differ.
fn assert_alike(seed: u64, one: &[String], other: &[String]) {
    let parting = one.iter().zip(other).position(|(one, other)| one != other);
    if let Some(at) = parting {
        let before = &one[at.saturating_sub(5)..at];
        panic!("seed {seed}, event {at}: after\n{}\n{}\nand\n{}", before.join("\n"), one[at], other[at]);
    }
    assert_eq!(one.len(), other.len(), "seed {seed}: one trace goes on where the other ends");
}

#[test]
fn a_seed_is_a_trace() {
    let seeds: u64 = std::env::var(SEEDS).map_or(6, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        let seed_alone = seed.to_string();
        // One of them runs another simulation first, whose remains must not matter.
        let [one, other] = in_two_processes("a_seed_is_a_trace", [&seed_alone, &format!("{},{seed}", seed + 100)]);
        assert_alike(seed, &one, &other);
        assert!(one.len() > 5_000, "seed {seed}: only {} events", one.len());
        let seen = |what: &str| one.iter().any(|line| line.contains(what));
        assert!(seen("network") && seen("Stored {") && seen("Delivered {"), "seed {seed}: little happened");
    }
}

#[test]
fn another_seed_is_another_trace() {
    let [one, other] = in_two_processes("another_seed_is_another_trace", ["1", "2"]);
    assert_ne!(one, other);
    for source in Source::ALL.into_iter().filter(|source| source.is_random()) {
        let values = |lines: &[String]| -> Vec<String> {
            let name = format!("{source:?} ");
            let values = lines.iter().filter_map(|line| Some(line.split_once(&name)?.1.to_owned()));
            values.collect()
        };
        assert!(values(&one).len() > 10, "{source:?} was not asked");
        // Later values would differ in any case, since the number of earlier draws differs.
        assert_ne!(values(&one)[0], values(&other)[0], "{source:?} does not follow from the seed");
    }
}

/// Otherwise equal values within a simulation would prove nothing.
#[test]
fn outside_of_a_simulation_every_source_of_randomness_differs() {
    let [one, other] = in_two_processes("outside", ["sources", "sources"]);
    for (one, other) in one.iter().zip(&other) {
        assert_ne!(one, other);
    }
    assert_eq!(one.len(), Source::ALL.len());
}

/// Other threads still see the real time and randomness.
#[test]
fn other_threads_are_left_alone() {
    let simulated = traced(false, || {
        let beside = std::thread::spawn(|| Source::ALL.map(sources::outside)).join().unwrap();
        (Source::ALL.map(sources::outside), beside)
    });
    let ((inside, beside), _) = simulated;
    for ((source, inside), beside) in Source::ALL.into_iter().zip(inside).zip(beside) {
        assert_ne!(inside, beside, "{source:?}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_millis() > u128::from(rmom_sim::EPOCH_MILLIS) + 1_000_000, "this is not the time: {now:?}");
}
