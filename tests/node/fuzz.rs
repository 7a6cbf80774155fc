//! Untrusted in: what comes from outside may be anything. The entries of the fuzz targets take every seed, every beginning of it and mutations of
//! it, with the stable compiler; a fuzzer goes on from there (`make fuzz`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../../fuzz/entries.rs"]
mod entries;

/// For each entry, so that `make test` stays short. `TRIAGED_FUZZ_SECONDS` makes it longer; continuous integration takes ten.
const SECONDS: u64 = 1;

fn seeds(entry: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("fuzz/seeds").join(entry);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    match entry {
        "configuration" => seeds.push(fs::read(root.join("conf/triaged.toml")).unwrap()),
        "model_card" => seeds.push(fs::read(root.join("models/m10.json")).unwrap()),
        _ => {}
    }
    assert!(!seeds.is_empty(), "{entry} has no seeds");
    seeds
}

/// A change of some bytes: overwritten, taken out, put in, or repeated.
fn mutated(seed: &[u8], changes: &[(u8, prop::sample::Index, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for (kind, at, piece) in changes {
        let at = at.index(bytes.len() + 1);
        let end = (at + piece.len()).min(bytes.len());
        match kind % 4 {
            0 => bytes[at..end].copy_from_slice(&piece[..end - at]),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, piece.iter().copied())),
            _ => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

/// Takes the seeds of an entry, every beginning of them, and mutations of them for a while.
fn try_entry(name: &str) {
    let seconds = std::env::var("TRIAGED_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SECONDS);
    let (_, entry) = entries::ENTRIES.into_iter().find(|(entry, _)| *entry == name).expect("an entry of that name");
    let changes = prop::collection::vec(
        (any::<u8>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..9)),
        1..6,
    );
    let seeds = seeds(name);
    let began = Instant::now();
    for seed in &seeds {
        entry(seed);
    }
    // A share of the time for the beginnings: there are few of short seeds.
    let beginnings =
        seeds.iter().flat_map(|seed| (0..seed.len()).step_by((seed.len() / 200).max(1)).map(|end| &seed[..end]));
    for beginning in beginnings.take_while(|_| began.elapsed() < Duration::from_secs(seconds) / 3) {
        entry(beginning);
    }
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let mut inputs = 0_u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        for seed in &seeds {
            let changes = changes.new_tree(&mut runner).unwrap().current();
            let bytes = mutated(seed, &changes);
            let outcome = std::panic::catch_unwind(|| entry(&bytes));
            if outcome.is_err() {
                let file = std::env::temp_dir().join(format!("triaged-fuzz-{name}"));
                fs::write(&file, &bytes).unwrap();
                panic!("{name} panicked; the input is in {}", file.display());
            }
            inputs += 1;
        }
    }
    println!("{name}: {inputs} inputs");
}

/// A test for each entry, so that they run beside each other.
macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            try_entry(stringify!($name));
        })*

        #[test]
        fn every_entry_has_a_test_and_a_target() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(entries::ENTRIES.map(|(name, _)| name), tested);
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
            let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
            for name in tested {
                assert!(root.join(format!("fuzz_targets/{name}.rs")).is_file(), "{name}");
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            }
        }
    };
}

tests! {
    pdu command_set data_set pixels decoder_answers configuration model_card http webhook_reply notification_template provider
}
