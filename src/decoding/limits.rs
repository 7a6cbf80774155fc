//! The time and memory that decoding one slice may take.

use crate::config;

/// Bounds of a decoder process.
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// Processor time for a slice, in seconds (`inference.decode_seconds`).
    pub seconds: u64,
    /// Memory beside that of the process itself, in bytes (`inference.decode_memory_mib`).
    pub memory: u64,
}

/// Bytes of an object that are read in a second, on a slow disk and a slow core.
const READ_IN_A_SECOND: u64 = 128 << 20;

impl DecodeLimits {
    pub fn new(settings: &config::Inference) -> DecodeLimits {
        DecodeLimits { seconds: settings.decode_seconds, memory: settings.decode_memory_mib.saturating_mul(1 << 20) }
    }

    /// Those for a slice of an object of so many bytes, which may first have to be read.
    pub fn of_object(self, bytes: u64) -> DecodeLimits {
        DecodeLimits {
            seconds: self.seconds + bytes / READ_IN_A_SECOND,
            // Its pixel data are there once as they were read, and for a moment once more while they become values.
            memory: self.memory.saturating_add(bytes.saturating_mul(2)),
        }
    }
}
