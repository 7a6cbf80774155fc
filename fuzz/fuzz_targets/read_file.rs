//! Any bytes as a file: an object or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(object) = triaged_imaging::read_bytes(bytes) {
        let _ = triaged::triage::Gate::default().assess(&object);
    }
});
